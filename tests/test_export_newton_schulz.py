"""Newton-Schulz graphs against U p(S) V^T, on two runtimes."""

import os

import ml_dtypes
import numpy as np
import pytest
from onnx_runtimes import RUNTIMES, by_onnxruntime
from oracle import polar_by_svd
from rounding_ops import RoundingOps

from keras_muon import SCHEDULES, Schedule
from keras_muon.export import newton_schulz
from keras_muon.newton_schulz import newton_schulz as iterate
from keras_muon.plan_choice import plan_for

ALL_RUNTIMES = pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)

# Arguments of the graph, and the shape of its input.
LAYOUTS = {
    "wide": ({"shape": (24, 40)}, (24, 40)),
    "tall": ({"shape": (40, 24)}, (40, 24)),
    "square": ({"shape": (32, 32)}, (32, 32)),
    "row": ({"shape": (1, 9)}, (1, 9)),
    "column": ({"shape": (9, 1)}, (9, 1)),
    "single": ({"shape": (1, 1)}, (1, 1)),
    "stack": ({"shape": (24, 40), "batch": 3}, (3, 24, 40)),
    "stack_of_one": ({"shape": (40, 24), "batch": 1}, (1, 40, 24)),
    "any_number": ({"shape": (40, 24), "batch": "k"}, (2, 40, 24)),
    "side_in": ({"shape": (40, 24), "side": "in"}, (40, 24)),
    "side_out": ({"shape": (24, 40), "batch": 2, "side": "out"}, (2, 24, 40)),
    "dynamic_wide": ({"shape": ("m", "n"), "dynamic": True}, (24, 40)),
    "dynamic_tall": ({"shape": ("m", "n"), "dynamic": True}, (40, 24)),
    "dynamic_in": ({"shape": ("m", 24), "dynamic": True}, (40, 24)),
    "dynamic_side": ({"shape": ("m", 24), "dynamic": True, "side": "in"}, (8, 24)),
    "dynamic_stack": (
        {"shape": ("m", "n"), "batch": "k", "dynamic": True},
        (2, 40, 24),
    ),
}
ALL_LAYOUTS = pytest.mark.parametrize("layout", LAYOUTS)

# Largest error seen in float32 is 1.1e-6, in float64 5e-15. A step too many or too few
# changes entries by 1e-2.
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}
# The first steps of Polar Express are the steepest. The largest error seen on 40 stacks
# like these is 3.7e-6.
TOLERANCE_OF_POLAR_EXPRESS = {"float32": 5e-6, "float64": 1e-12}


def assert_polar(runtime, x, triples, tolerance=TOLERANCE, **arguments):
    """The graph returns the oracle's answer, in the dtype and shape of its input."""
    result = runtime(newton_schulz(**arguments), x)
    assert result.dtype == x.dtype
    np.testing.assert_allclose(
        result, polar_by_svd(x, triples), rtol=0, atol=tolerance[x.dtype.name]
    )


@ALL_RUNTIMES
@ALL_LAYOUTS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_layout_equals_the_oracle(rng, runtime, layout, dtype):
    arguments, shape = LAYOUTS[layout]
    x = rng.standard_normal(shape).astype(dtype)
    triples = SCHEDULES["jordan"].take()
    assert_polar(runtime, x, triples, dtype=dtype, **arguments)


@ALL_RUNTIMES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_equals_the_oracle(rng, runtime, name, batch, dtype):
    x = rng.standard_normal((16, 24) if batch is None else (batch, 16, 24))
    triples = SCHEDULES[name].take()
    arguments = {"shape": (16, 24), "batch": batch, "schedule": name, "dtype": dtype}
    steep = name == "polar_express"
    tolerance = TOLERANCE_OF_POLAR_EXPRESS if steep else TOLERANCE
    assert_polar(runtime, x.astype(dtype), triples, tolerance, **arguments)


@ALL_RUNTIMES
def test_own_schedules_and_step_counts(rng, runtime):
    """Cubic and quintic steps mix, and `steps` cuts or repeats."""
    x = rng.standard_normal((12, 20)).astype("float32")
    own = Schedule(((2.0, -1.5, 0.5), (1.5, -0.5, 0.0)), tail="repeat")
    for steps in (1, 2, 6):
        assert_polar(
            runtime, x, own.take(steps), shape=(12, 20), schedule=own, steps=steps
        )


@pytest.mark.parametrize("opset", [18, 26])
@ALL_LAYOUTS
def test_both_ends_of_the_opsets_run(rng, layout, opset):
    arguments, shape = LAYOUTS[layout]
    x = rng.standard_normal(shape).astype("float32")
    triples = SCHEDULES["jordan"].take()
    assert_polar(by_onnxruntime, x, triples, opset=opset, **arguments)


@pytest.mark.parametrize("shape", [(256, 1024), (1024, 512), (2, 384, 768)])
def test_large_matrices_keep_the_tolerance(rng, shape):
    """Where a single sum of squares would lose three digits; largest seen 1.1e-6."""
    x = rng.standard_normal(shape).astype("float32")
    arguments = {"shape": shape[-2:], "batch": shape[0] if len(shape) == 3 else None}
    triples = SCHEDULES["polar_express"].take()
    assert_polar(by_onnxruntime, x, triples, schedule="polar_express", **arguments)


@pytest.mark.skipif(
    os.environ["KERAS_BACKEND"] != "torch",
    reason="no part of it depends on the backend, and an SVD takes seconds",
)
@pytest.mark.parametrize("shape", [(1024, 1024), (1024, 4096)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extents_to_4096_keep_their_digits(rng, shape, dtype):
    """Seen 2.8e-7 and 1.2e-15. A norm of one sum loses three digits: 4e-5 here.

    A first coefficient wrong in its fourth digit changes entries by 4.5e-5.
    """
    tolerance = {"float32": 1e-6, "float64": 1e-13}
    x = rng.standard_normal(shape).astype(dtype)
    triples = SCHEDULES["jordan"].take()
    assert_polar(by_onnxruntime, x, triples, tolerance, shape=shape, dtype=dtype)


@ALL_RUNTIMES
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
@pytest.mark.parametrize("layout", ["wide", "stack", "dynamic_tall"])
def test_the_scale_makes_no_difference(rng, runtime, layout, scale):
    arguments, shape = LAYOUTS[layout]
    x = rng.standard_normal(shape).astype("float32") * np.float32(scale)
    assert_polar(runtime, x, SCHEDULES["jordan"].take(), **arguments)


@ALL_RUNTIMES
@ALL_LAYOUTS
def test_zero_gives_zero(runtime, layout):
    arguments, shape = LAYOUTS[layout]
    result = runtime(newton_schulz(**arguments), np.zeros(shape, "float32"))
    np.testing.assert_array_equal(result, np.zeros(shape))


@ALL_RUNTIMES
@pytest.mark.parametrize("shape", [(4, 5), (33, 20)])
@pytest.mark.parametrize("schedule", ["jordan", "cubic"])
def test_an_empty_stack_stays_empty(runtime, shape, schedule):
    model = newton_schulz(shape, batch="k", schedule=schedule)
    assert runtime(model, np.zeros((0, *shape), "float32")).shape == (0, *shape)


@ALL_RUNTIMES
def test_rank_deficient_matrices_and_their_neighbours(rng, runtime):
    """A matrix of rank 1, a zero one and a huge one do not see each other.

    In the directions that a matrix lacks, the rounding of float32 (6e-8) is multiplied
    by the first coefficients, about 500. Largest error seen 1.1e-5, in 60 stacks.
    """
    x = rng.standard_normal((4, 16, 24)).astype("float32")
    x[1] = np.outer(x[1, :, 0], x[1, 0])
    x[2] = 0.0
    x[3] *= np.float32(1e30)
    result = runtime(newton_schulz((16, 24), batch=4, schedule="you"), x)
    expected = polar_by_svd(x, SCHEDULES["you"].take())
    np.testing.assert_allclose(result[1], expected[1], rtol=0, atol=2e-5)
    np.testing.assert_allclose(result[[0, 3]], expected[[0, 3]], rtol=0, atol=2e-6)
    assert not result[2].any()


# Units in the last place of the narrow dtype, at 1; and how far it is from float32.
NARROW = {"bfloat16": (ml_dtypes.bfloat16, 2**-8), "float16": (np.float16, 2**-11)}


@ALL_RUNTIMES
@pytest.mark.parametrize("layout", ["wide", "tall", "stack", "dynamic_tall"])
@pytest.mark.parametrize("schedule", ["jordan", "cubic"])
@pytest.mark.parametrize("emulate", NARROW)
def test_emulation_rounds_every_product(rng, runtime, layout, schedule, emulate):
    """As close to NumPy with ml_dtypes as the order of sums allows."""
    arguments, shape = LAYOUTS[layout]
    dtype, unit = NARROW[emulate]
    x = rng.standard_normal(shape).astype("float32")
    for steps, differing in ((1, 0.05), (None, 1.0)):
        model = newton_schulz(
            schedule=schedule, steps=steps, emulate=emulate, **arguments
        )
        result = runtime(model, x)
        triples = SCHEDULES[schedule].take(steps)
        plan = plan_for(
            *shape[-2:], SCHEDULES[schedule], emulate, steps=steps, shared=False
        )
        expected = iterate(x, plan, RoundingOps(dtype, emulate))
        # Each entry is a number of the narrow dtype. In one step the order of sums
        # changes the rounding of a few, and every later step spreads the difference.
        np.testing.assert_array_equal(result, result.astype(dtype).astype("float32"))
        assert np.mean(result != expected) <= differing
        assert np.abs(result - expected).max() <= 2 * unit
    # Errors of 0.9 to 2.9 units seen; without rounding it would be 0.
    error = np.abs(result - polar_by_svd(x, triples)).max()
    assert 0.1 * unit < error < 10 * unit
