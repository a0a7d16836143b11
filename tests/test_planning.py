"""Plans for this backend: stacks one by one, panels on torch, what they report."""

import keras
import numpy as np
import pytest

from keras_muon import SCHEDULES, planning
from keras_muon.plan_choice import LARGEST_STACKED_ON_CPU

YOU = SCHEDULES["you"]
# One entry more than what is stacked on a CPU.
LARGE = (256, 257)


def planned(shape, xla=True):
    return planning.planned(shape, YOU, None, "float32", "float32", xla=xla)


@pytest.mark.parametrize(
    ("shape", "accelerator", "expected"),
    [
        ((3, *LARGE), False, True),
        ((3, *LARGE), True, False),
        (LARGE, False, False),
        ((3, 256, 256), False, False),
    ],
)
def test_large_stacks_follow_one_by_one_on_a_cpu(
    monkeypatch, shape, accelerator, expected
):
    """A CPU has nothing to do in parallel; what is small or alone needs no loop."""
    assert LARGEST_STACKED_ON_CPU == 256 * 256
    monkeypatch.setattr(planning, "runs_on_accelerator", lambda: accelerator)
    assert (planned(shape).loop != "none") is expected


@pytest.mark.parametrize("xla", [True, False])
def test_a_loop_writes_into_the_stack_where_xla_does_so_in_place(backend, xla):
    """Eager torch, and TensorFlow without XLA, need no stack."""
    in_stack = backend == "jax" or (backend == "tensorflow" and xla)
    assert planned((3, *LARGE), xla).loop == ("in_stack" if in_stack else "apart")


@pytest.mark.parametrize("xla", [True, False])
def test_a_loop_gives_what_each_gives_alone(rng, xla):
    """It keeps order and values of a stack."""
    stack = rng.normal(size=(3, *LARGE)).astype("float32")
    plan = planned(stack.shape, xla)
    result = planning.polar_factor(keras.ops.convert_to_tensor(stack), plan)
    result = keras.ops.convert_to_numpy(result)
    for matrix, factor in zip(stack, result, strict=True):
        alone = planning.polar_factor(
            keras.ops.convert_to_tensor(matrix), planned(LARGE)
        )
        # Largest difference seen 4e-7; another matrix's factor is 0.1 off.
        alone = keras.ops.convert_to_numpy(alone)
        np.testing.assert_allclose(factor, alone, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("fans", "expected"), [((64, 64), True), ((128, 512), True), ((32, 64), False)]
)
def test_tensorflow_without_xla_takes_smaller_ones_one_by_one(backend, fans, expected):
    """It multiplies stacks slowly; others keep them, and XLA does on TensorFlow."""
    shape = (3, *fans)
    one_by_one = backend == "tensorflow" and expected
    assert (planned(shape, xla=False).loop == "apart") is one_by_one
    assert planned(shape).loop == "none"


def test_panels_are_for_torch_on_a_cpu(monkeypatch, backend):
    """XLA gains nothing by them, and an accelerator multiplies whole."""
    on_torch = backend == "torch" and not planning.runs_on_accelerator()
    assert (planned((768, 768)).panels == 4) is on_torch
    monkeypatch.setattr(planning, "runs_on_accelerator", lambda: True)
    assert planned((768, 768)).panels == 1
