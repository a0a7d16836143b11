"""orthogonalize() on the backend in use, against singular values in float64."""

import contextlib

import keras
import numpy as np
import pytest
from compiled_functions import compiled
from keras import ops
from oracle import from_matrices, polar_by_svd, to_matrices

from keras_muon import SCHEDULES, MatrixView, Schedule, orthogonalize, planning

# The same few sizes everywhere: JAX compiles each operation once per shape.
SHAPES = {"wide": (6, 10), "tall": (10, 6), "stack": (3, 6, 10)}
ALL_SHAPES = SHAPES | {
    "square": (8, 8),
    "row": (1, 6),
    "column": (6, 1),
    "stack_of_stacks": (1, 3, 6, 10),
}
MATRICES = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)

VIEWS = {
    "transposed": MatrixView((10, 6), (1,), (0,)),
    "convolution": MatrixView((2, 1, 3, 10), (0, 1, 2), (3,)),
    "attention_query": MatrixView((6, 2, 5), (0,), (1, 2)),
    "heads_apart": MatrixView((6, 3, 10), (0,), (2,), (1,)),
    "shuffled": MatrixView((3, 10, 3, 2), (3, 0), (1,), (2,)),
    "groups": MatrixView((2, 3, 1, 30), (0, 1, 2), (4,), (3,), (2, 3, 1, 3, 10)),
}


def to_float64(x):
    return ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64")


def largest_error(x, result, triples):
    return np.abs(to_float64(result) - polar_by_svd(x, triples)).max()


@pytest.mark.parametrize("shape", ALL_SHAPES.values(), ids=ALL_SHAPES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_maps_the_singular_values(rng, name, shape):
    """All shipped schedules, on matrices and stacks of every aspect, in float32."""
    x = rng.standard_normal(shape).astype("float32")
    result = orthogonalize(x, name)
    assert tuple(result.shape) == shape
    # Largest error seen 1.7e-5; see the next test for the size of the effects.
    assert largest_error(x, result, SCHEDULES[name].take()) < 1e-4


def ill_conditioned(rng, smallest):
    """A square matrix whose singular values fall from 1 to `smallest`."""
    u, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    v, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    return ((u * np.geomspace(1.0, smallest, 8)) @ v.T).astype("float32")


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_step_counts(rng, name):
    """On an ill-conditioned matrix each step is seen, and one fewer is not close."""
    x = ill_conditioned(rng, 1e-3)
    schedule = SCHEDULES[name]
    fewer = orthogonalize(x, name, steps=schedule.steps - 1)
    # Largest error seen 7.5e-6; the last step moves the result by 0.077 or more.
    assert largest_error(x, orthogonalize(x, name), schedule.take()) < 1e-4
    assert largest_error(x, fewer, schedule.take(schedule.steps - 1)) < 1e-4
    assert largest_error(x, fewer, schedule.take()) > 0.05


def by_oracle(x, view, triples):
    split = np.asarray(x, "float64").reshape(view.factors)
    axes = (view.batch_axes, view.in_axes, view.out_axes)
    matrices = polar_by_svd(to_matrices(split, *axes), triples)
    return from_matrices(matrices, view.factors, *axes).reshape(view.shape)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_says_which_axes_form_matrices(rng, view):
    """Kernels of any rank become the polar factors of their matrices, in place."""
    x = rng.standard_normal(view.shape).astype("float32")
    expected = by_oracle(x, view, SCHEDULES["you"].take())
    # Largest error seen 1.2e-6; see the next test for the size of the effect.
    result = to_float64(orthogonalize(x, view=view))
    assert np.abs(result - expected).max() < 1e-4


@pytest.mark.parametrize("name", [n for n in VIEWS if n != "transposed"])
def test_the_comparison_notices_the_view(rng, name):
    """Taking the last two axes instead gives another kernel."""
    view = VIEWS[name]
    x = rng.standard_normal(view.shape)
    triples = SCHEDULES["you"].take()
    difference = by_oracle(x, view, triples) - polar_by_svd(x, triples)
    assert np.abs(difference).max() > 0.1


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # Largest errors seen 2.4e-4 and 1.9e-3: half a unit in the last place of results
    # below 1. Rounding in every step instead of at the end is off by 1e-2 and more.
    [("float16", 5e-4), ("bfloat16", 4e-3)],
)
@MATRICES
def test_narrow_input_is_computed_in_float32_and_returned_as_it_came(
    rng, shape, dtype, tolerance
):
    """Only the result is rounded, once."""
    x = ops.cast(ops.convert_to_tensor(rng.standard_normal(shape)), dtype)
    result = orthogonalize(x)
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    assert largest_error(to_float64(x), result, SCHEDULES["you"].take()) < tolerance


def keeping_float64():
    """Where float64 lives: everywhere, on JAX inside this context."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True)


@pytest.mark.parametrize("compute_dtype", ["auto", "float64"])
# The last is large enough for steps to share a Gram matrix.
@pytest.mark.parametrize("shape", [*SHAPES.values(), (130, 400)], ids=str)
def test_float64_input_is_computed_in_float64(rng, shape, compute_dtype):
    """Double precision in, double precision all the way."""
    x = rng.standard_normal(shape)
    with keeping_float64():
        result = orthogonalize(x, "jordan", compute_dtype=compute_dtype)
        assert keras.backend.standardize_dtype(result.dtype) == "float64"
        result = ops.convert_to_numpy(result)
        narrow = ops.convert_to_numpy(
            orthogonalize(x, "jordan", compute_dtype="float32")
        )
    expected = polar_by_svd(x, SCHEDULES["jordan"].take())
    # Largest error seen 3.5e-15; float32 products are off by 3.7e-7 or more.
    assert np.abs(result - expected).max() < 1e-12
    assert np.abs(narrow - expected).max() > 1e-8


@pytest.mark.parametrize("scale", [1e-30, 1e60, 1e200, 1e300], ids=str)
@pytest.mark.parametrize("shape", [(6, 10), (3, 6, 10)], ids=str)
def test_float64_has_a_range_of_its_own(rng, scale, shape):
    """Squares of 1e200 overflow, those in units of the largest entry do not."""
    x = rng.standard_normal(shape)
    with keeping_float64():
        result = ops.convert_to_numpy(orthogonalize(x * scale, "jordan"))
    expected = polar_by_svd(x, SCHEDULES["jordan"].take())
    # Largest error seen 5.7e-15; a factor of zero is off by 0.59.
    assert np.abs(result - expected).max() < 1e-12


@pytest.mark.parametrize("schedule", ["auto", "jordan"])
@pytest.mark.parametrize("shape", [(6, 10), (3, 6, 10), (384, 390)], ids=str)
def test_the_largest_entries_of_float32(rng, shape, schedule):
    """XLA divides by what it multiplies, of which the reciprocal would vanish."""

    def function(x):
        return orthogonalize(x, schedule, compute_dtype="float32")

    x = rng.uniform(-1.0, 1.0, shape).astype("float32")
    largest = x * np.finfo("float32").max
    expected = ops.convert_to_numpy(function(x))
    for each in (function, *compiled(function)):
        result = ops.convert_to_numpy(each(ops.convert_to_tensor(largest)))
        # Largest difference seen 1.5e-6; a factor of zero is off by 0.2 or more.
        np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("compute_dtype", "tolerance", "effect"),
    # Errors seen 5.2e-4 to 0.013 and 4.3e-3 to 0.066, much the smallest on torch. The
    # last column is what float32 products, at 1e-6, do not reach.
    [("float16", 0.05, 1e-4), ("bfloat16", 0.2, 1e-3)],
)
@MATRICES
def test_products_may_be_narrow(rng, shape, compute_dtype, tolerance, effect):
    """A narrow `compute_dtype` costs digits, and only digits."""
    x = rng.standard_normal(shape).astype("float32")
    result = orthogonalize(x, compute_dtype=compute_dtype)
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    error = largest_error(x, result, SCHEDULES["you"].take())
    assert effect < error < tolerance


def test_products_are_wide_where_xla_would_convert_narrow_ones(rng, monkeypatch):
    """On TensorFlow XLA may compile any call, and be slower with bfloat16 on a CPU."""
    monkeypatch.setattr(planning, "multiplies_bfloat16", lambda xla: not xla)
    x = rng.standard_normal((2, 264, 300)).astype("float32")
    error = largest_error(x, orthogonalize(x), SCHEDULES["you"].take())
    # Largest error seen 7.9e-7; bfloat16 is off by 2.4e-3 or more.
    assert error < 1e-4


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e6, 1e30], ids=str)
def test_narrow_products_do_not_narrow_the_norm(rng, scale):
    """float16 ends at 65504 and 6e-8; a gradient outside is as good as any."""
    x = rng.standard_normal((6, 10)).astype("float32")
    reference = to_float64(orthogonalize(x, compute_dtype="float16"))
    scaled = orthogonalize(x * np.float32(scale), compute_dtype="float16")
    # No difference seen; a norm in float16 is zero or infinite, and off by 0.8.
    assert np.abs(to_float64(scaled) - reference).max() < 0.05


def test_a_schedule_of_ones_own(rng):
    """A `Schedule` object is used as it is, and `steps` counts its triples."""
    own = Schedule(((2.0, -1.5, 0.5), (1.5, -0.5, 0.0)), tail="repeat")
    x = rng.standard_normal((6, 10)).astype("float32")
    # Largest error seen 1.8e-7; two steps instead of seven are off by 0.15.
    assert largest_error(x, orthogonalize(x, own), own.take(2)) < 1e-5
    assert largest_error(x, orthogonalize(x, own.to_json(), 7), own.take(7)) < 1e-5
    assert largest_error(x, orthogonalize(x, own, 7), own.take(2)) > 0.1


class Orthogonal(keras.Layer):
    """Polar factors of what comes in, of which a graph does not know how many."""

    def call(self, x):
        return orthogonalize(x, compute_dtype="float32")


# The last ones are compressed to fewer directions, on either side.
@pytest.mark.parametrize("shape", [(6, 4), (2, 6, 4), (384, 390), (390, 384)], ids=str)
def test_the_number_of_matrices_need_not_be_known(rng, shape):
    """As of the samples of a batch, in the graph of a model."""
    inputs = keras.Input(shape)
    model = keras.Model(inputs, Orthogonal()(inputs))
    x = rng.standard_normal((3, *shape)).astype("float32")
    expected = ops.convert_to_numpy(orthogonalize(x, compute_dtype="float32"))
    # Largest difference seen 1.3e-6; one step fewer is off by 0.05 or more.
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-4)
