"""Variables of every floating dtype take the steps of float32 variables."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

SHAPES = {"first": (6, 4), "second": (6, 4), "gain": (5,)}
ROUTES = {"first|second": "muon", "gain": "adamw"}
STEPS = 3

# Gradients up to 600: their squares exceed the largest float16 number, 65504.
LARGE = 300.0
SMALL = 1e-4

# Largest errors seen: 1.5e-3 and 1.4e-2, the rounding of weights in these dtypes, and
# 4.8e-7. In three steps weights of AdamW move by 1, those of a matrix by 0.2; gradients
# that a clip turned into zeros are 1.4 off.
TOLERANCES = {"float16": 5e-3, "bfloat16": 4e-2, "float64": 1e-5}

CLIPS = ["clipnorm", "clipvalue", "global_clipnorm"]


def sixteenths(numbers, shape):
    """Random multiples of 1/16 in [-2, 2], which every dtype holds exactly."""
    return numbers.integers(-32, 33, shape) / 16


def trained(dtype, scale, steps=STEPS, **arguments):
    """Return all weights in one row, and the optimizer."""
    numbers = np.random.default_rng(3)
    variables = [
        keras.Variable(sixteenths(numbers, shape), name=name, dtype=dtype)
        for name, shape in SHAPES.items()
    ]
    optimizer = Muon(0.5, routes=ROUTES, **arguments)
    for _ in range(steps):
        gradients = [scale * sixteenths(numbers, shape) for shape in SHAPES.values()]
        optimizer.apply([keras.ops.cast(g, dtype) for g in gradients], variables)
    rows = [keras.ops.convert_to_numpy(keras.ops.cast(v, "float32")) for v in variables]
    return np.concatenate([row.ravel() for row in rows]), optimizer


@pytest.fixture(autouse=True)
def _float64_on_jax():
    """JAX has no float64 unless it is asked for it."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("scale", [LARGE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_every_dtype_takes_the_same_steps(dtype, scale):
    """No gradient of a dtype is too large or too small for the optimizer."""
    values, _ = trained(dtype, scale)
    expected, _ = trained("float32", scale)
    start, _ = trained("float32", scale, steps=0)
    np.testing.assert_allclose(values, expected, rtol=0, atol=TOLERANCES[dtype])
    moved = np.abs(expected - start)
    gain = SHAPES["gain"][0]
    assert np.median(moved[:-gain]) > 2 * TOLERANCES[dtype]
    assert np.median(moved[-gain:]) > 5 * TOLERANCES[dtype]


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float64", "float64")],
)
def test_state_is_at_least_float32(dtype, kept):
    """Momentum and second moments of narrow variables are wider than they are."""
    _, optimizer = trained(dtype, SMALL, steps=1)
    dtypes = [v.dtype for v in optimizer.variables if len(v.shape)]
    assert {keras.backend.standardize_dtype(d) for d in dtypes} == {kept}


@pytest.mark.parametrize("clip", CLIPS)
def test_clipping_of_large_float16_gradients(clip):
    """The norm that clips is right where its square is beyond float16."""
    values, _ = trained("float16", LARGE, **{clip: 1.0})
    expected, _ = trained("float32", LARGE, **{clip: 1.0})
    np.testing.assert_allclose(values, expected, rtol=0, atol=TOLERANCES["float16"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_accumulating_narrow_gradients(dtype):
    """A cycle of narrow gradients ends as one of float32 gradients does."""
    arguments = {"steps": 2, "ns_steps": 2, "gradient_accumulation_steps": 2}
    values, _ = trained(dtype, LARGE, **arguments)
    expected, _ = trained("float32", LARGE, **arguments)
    np.testing.assert_allclose(values, expected, rtol=0, atol=TOLERANCES[dtype])
    start, _ = trained("float32", LARGE, steps=0)
    assert np.abs(expected - start).max() > 10 * TOLERANCES[dtype]


def test_averaging_narrow_weights():
    """Moving averages of float16 weights overwrite them as float32 averages would."""
    arguments = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2}
    values, _ = trained("float16", LARGE, **arguments)
    expected, _ = trained("float32", LARGE, **arguments)
    np.testing.assert_allclose(values, expected, rtol=0, atol=TOLERANCES["float16"])
    plain, _ = trained("float32", LARGE)
    assert np.abs(expected - plain).max() > 10 * TOLERANCES["float16"]
