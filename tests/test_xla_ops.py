"""On JAX, steps on small matrices share kernels, and leave work to other threads.

Nothing else may change: neither values, nor what a caller can transform.
"""

import re

import keras
import numpy as np
import pytest
from keras import ops

from keras_muon import orthogonalize
from keras_muon.plan_choice import plan_for
from keras_muon.schedules import SCHEDULES
from keras_muon.xla_ops import XlaOps

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="only JAX compiles by XLA alone"
)


def compiled(x, *arguments, **named):
    import jax

    function = jax.jit(lambda x: orthogonalize(x, *arguments, **named))
    return function.lower(x).compile()


def kernels(executable):
    """Return what XLA compiled apart: fused expressions without names and places."""
    text = re.sub(r", metadata=\{[^}]*\}", "", executable.as_text())
    bodies = re.findall(r"^%fused_computation[^{]*\{\n(.*?)^\}", text, re.M | re.S)
    return {re.sub(r"%?[A-Za-z_-]+[.\d]*(?=[ ,)=])", "", body) for body in bodies}


@pytest.fixture
def stack(rng):
    return ops.convert_to_tensor(rng.normal(size=(3, 16, 24)).astype("float32"))


def test_steps_share_kernels(stack, monkeypatch):
    """Five steps of two sums each compile two or three; with known factors ten."""
    shared = len(kernels(compiled(stack)))
    monkeypatch.setattr(XlaOps, "suits", lambda plan: False)
    assert len(kernels(compiled(stack))) - shared >= 7


@pytest.mark.parametrize(
    ("shape", "named", "turned"),
    [
        ((2, 127, 127), {}, 0),
        ((2, 128, 128), {}, 5),
        ((2, 191, 191), {}, 5),
        ((2, 192, 192), {}, 0),
        ((2, 128, 512), {}, 5),
        ((2, 128, 128), {"schedule": "jordan"}, 0),
        ((2, 128, 128), {"compute_dtype": "bfloat16"}, 0),
    ],
    ids=str,
)
def test_one_product_of_a_step_goes_to_eigen(shape, named, turned):
    """XLA keeps one whose left side is turned apart, and goes on with other stacks.

    Not where products are narrow, or the first ones split, as those of `jordan`.
    """
    text = compiled(ops.zeros(shape, "float32"), **named).as_text()
    assert len(re.findall(r" dot\(.*lhs_contracting_dims=\{1\}", text)) == turned


@pytest.mark.parametrize(
    ("shape", "dtype", "split", "holds"),
    [
        ((2, 64, 64), "float32", False, True),
        ((3, 1, 64, 64), "float32", False, True),
        ((1, 64, 64), "float32", False, False),
        ((64, 64), "float32", False, False),
        ((2, 64, 64), "bfloat16", False, False),
        ((2, 64, 64), "float32", True, False),
    ],
    ids=str,
)
def test_factors_of_stacks_hold_their_identity(shape, dtype, split, holds):
    """Not those that are narrow, split or alone."""
    plan = plan_for(64, 64, SCHEDULES["jordan"], dtype, split=split)
    assert bool(plan.split) is split
    identity, _ = XlaOps(plan).with_identity(2.0, ops.zeros(shape, dtype))
    assert identity == (0.0 if holds else 2.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("schedule", ["auto", "polar_express", "jordan"])
@pytest.mark.parametrize("fans", [(16, 24), (128, 160)], ids=str)
def test_values_are_those_of_known_factors(rng, fans, schedule, dtype, monkeypatch):
    """XLA may fuse otherwise: float32 rounds to 6e-8 and bfloat16 to 4e-3 of an entry.

    The slopes of the steps make 2e-6 of that in float32. A factor taken for its
    neighbour changes entries by 0.1 and more.
    """
    stack = ops.convert_to_tensor(rng.normal(size=(3, *fans)).astype("float32"))
    named = {"schedule": schedule, "compute_dtype": dtype}
    results = [np.array(compiled(stack, **named)(stack))]
    monkeypatch.setattr(XlaOps, "suits", lambda plan: False)
    results.append(np.array(compiled(stack, **named)(stack)))
    tolerance = {"float32": 1e-5, "bfloat16": 0.03}[dtype]
    np.testing.assert_allclose(*results, rtol=0, atol=tolerance)


def test_gradients_flow_through(stack):
    """The loop that hides factors is no part of what is differentiated.

    Compiled and not, gradients differ by rounding; a lost one is zero. They are about
    1 here.
    """
    import jax

    def total(x):
        return ops.sum(orthogonalize(x)[..., 0])

    apart, together = jax.grad(total)(stack), jax.jit(jax.grad(total))(stack)
    assert np.abs(apart).max() > 0.1
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-4)
    assert np.isfinite(jax.jit(jax.hessian(total))(stack[:1])).all()


@pytest.mark.parametrize(
    ("fans", "suits"),
    [((32, 64), True), ((256, 256), True), ((256, 257), False), ((384, 384), False)],
    ids=str,
)
def test_what_it_suits(fans, suits):
    """Small matrices, whose stacks are side by side."""
    assert XlaOps.suits(plan_for(*fans, SCHEDULES["auto"], "float32")) is suits
