"""Factors of a step that hold their identity, on every backend."""

import keras
import numpy as np
import pytest

from keras_muon import SCHEDULES
from keras_muon.keras_ops import KerasOps
from keras_muon.newton_schulz import segment
from keras_muon.plan_choice import plan_for
from keras_muon.planning import carrier

CUBIC = (1.5, -0.5, 0.0)
QUINTIC = SCHEDULES["you"].coefficients[-1]
RUNS = [(QUINTIC,), (CUBIC,), (CUBIC, QUINTIC, CUBIC), (QUINTIC, CUBIC, QUINTIC)]


def stepped(x, triples):
    """The same steps by the formula of the paper, in float64."""
    for a, b, c in triples:
        gram = x @ np.swapaxes(x, -1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.parametrize("triples", RUNS, ids=len)
def test_steps_are_those_of_the_paper(rng, triples, side):
    """To 1e-5; leaving out an identity would be an error of about 1."""
    x = rng.normal(size=(2, 24, 40)) / 20.0
    wanted = stepped(x, triples)
    turned = (lambda y: y) if side == "in" else (lambda y: np.swapaxes(y, -1, -2))
    given = keras.ops.convert_to_tensor(turned(x), "float32")
    results = [
        turned(keras.ops.convert_to_numpy(segment(given, triples, side, ops)))
        for ops in (KerasOps(whole_factors=True), KerasOps())
    ]
    for result in results:
        assert np.linalg.norm(result - wanted) < 1e-5 * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("dtype", "whole"), [("float32", True), ("bfloat16", False), ("float16", False)]
)
def test_only_wide_dtypes_have_room_for_the_identity(dtype, whole):
    """A narrow one would round the rest by what the identity is larger."""
    x = keras.ops.ones((3, 3), dtype)
    identity, factor = KerasOps(whole_factors=True).with_identity(4.0, x)
    diagonal = np.diag(keras.ops.convert_to_numpy(keras.ops.cast(factor, "float32")))
    assert (identity, *diagonal) == ((0.0, 5.0, 5.0, 5.0) if whole else (4.0, 1, 1, 1))


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="torch has its own, see test_torch_ops"
)
@pytest.mark.parametrize(
    ("arguments", "compiled", "whole"),
    [
        ({"loop": "in_stack"}, True, True),
        ({"loop": "apart"}, True, True),
        ({"loop": "in_stack"}, False, False),
        ({"loop": "none"}, True, False),
        ({"loop": "in_stack", "split": True}, True, False),
    ],
    ids=str,
)
def test_who_has_whole_factors(arguments, compiled, whole):
    """Large matrices of a compiled graph, unless their products are split."""
    plan = plan_for(512, 640, SCHEDULES["jordan"], "float32", **arguments)
    assert bool(plan.split) is arguments.get("split", False)
    assert carrier(plan, compiled=compiled).whole_factors is whole
