"""Gradients through `orthogonalize`, beside finite differences."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_muon import orthogonalize

# One matrix, stacks that are multiplied as such, and one whose matrices follow each
# other on a CPU.
SHAPES = [(6, 10), (3, 10, 6), (2, 264, 250)]


def by_tensorflow(function, x):
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


def by_tensorflow_with_xla(function, x):
    import tensorflow as tf

    return tf.function(lambda x: by_tensorflow(function, x), jit_compile=True)(x)


def by_tensorflow_in_a_graph(function, x):
    import tensorflow as tf

    return tf.function(lambda x: by_tensorflow(function, x))(x)


def by_jax(function, x):
    import jax

    return jax.grad(function)(x)


def by_torch(function, x):
    import torch

    x = torch.from_numpy(x).requires_grad_()
    function(x).backward()
    return x.grad


WAYS = {
    "tensorflow": [by_tensorflow, by_tensorflow_in_a_graph, by_tensorflow_with_xla],
    "jax": [by_jax],
    "torch": [by_torch],
}


def assert_as_finite_differences(function, x, direction, way):
    """Compare the slope along a direction, which must not be flat."""
    gradient = ops.convert_to_numpy(way(function, x)).astype("float64")
    step = np.float32(1e-2)
    ahead, behind = (
        float(ops.convert_to_numpy(function(x + sign * step * direction)))
        for sign in (1, -1)
    )
    expected = (ahead - behind) / (2 * step)
    found = (gradient * direction).sum()
    # Largest difference seen 0.06 %: the curvature between both sides.
    assert found == pytest.approx(expected, rel=0.005)
    assert abs(expected) > 0.1


@pytest.mark.parametrize(
    ("shape", "schedule"),
    [*((shape, "cubic") for shape in SHAPES), *((s, "quintic") for s in SHAPES[:2])],
    ids=str,
)
@pytest.mark.parametrize("way", WAYS[keras.backend.backend()])
def test_gradients_are_those_of_finite_differences(rng, shape, schedule, way):
    """Along one direction; of a gradient without it nothing would be left."""
    x, weights, direction = (
        rng.standard_normal(shape).astype("float32") for _ in range(3)
    )

    def function(x):
        factor = orthogonalize(x, schedule, compute_dtype="float32")
        return ops.sum(factor * ops.convert_to_tensor(weights))

    assert_as_finite_differences(function, x, direction, way)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("way", WAYS[keras.backend.backend()])
def test_gradients_at_every_scale_are_those_at_one(rng, scale, way):
    """Over the scale: none flows through the unit, whose square would overflow."""
    x = rng.standard_normal((6, 10)).astype("float32")
    weights = ops.convert_to_tensor(rng.standard_normal((6, 10)).astype("float32"))

    def function(x):
        factor = orthogonalize(x, "jordan", compute_dtype="float32")
        return ops.sum(factor * weights)

    expected = ops.convert_to_numpy(way(function, x))
    found = ops.convert_to_numpy(way(function, x * np.float32(scale)))
    # In float64: 1e-30 times the scale of some entries is below float32.
    found = found.astype("float64") * scale
    # Seen 6e-6 of the largest; with a gradient through the unit not a number, or 0.2.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * expected.max())


@pytest.mark.parametrize("schedule", ["jordan", "auto"])
@pytest.mark.parametrize("shape", [(6, 10), (390, 400)], ids=str)
@pytest.mark.parametrize("way", WAYS[keras.backend.backend()])
def test_a_zero_matrix_has_no_gradient_and_leaves_others_theirs(
    rng, shape, schedule, way
):
    """As of a layer that no token reached; without care it is not a number."""
    x = np.zeros((2, *shape), "float32")
    x[1] = rng.standard_normal(shape)
    weights = ops.convert_to_tensor(rng.standard_normal(x.shape).astype("float32"))

    def function(x):
        factor = orthogonalize(x, schedule, compute_dtype="float32")
        return ops.sum(factor * weights)

    gradient = ops.convert_to_numpy(way(function, x))
    np.testing.assert_array_equal(gradient[0], 0.0)
    assert np.isfinite(gradient[1]).all()
    assert np.abs(gradient[1]).max() > 1e-3


@pytest.mark.parametrize("way", WAYS[keras.backend.backend()])
def test_rows_columns_and_entries_of_zeros_have_their_gradients(rng, way):
    """Along a direction that fills them; without their part it is another number."""
    x, weights, direction = (
        rng.standard_normal((6, 10)).astype("float32") for _ in range(3)
    )
    x[0], x[:, 1], x[2, 3] = 0.0, 0.0, 0.0
    direction = np.where(x == 0.0, direction, 0.0).astype("float32")

    def function(x):
        factor = orthogonalize(x, "cubic", compute_dtype="float32")
        return ops.sum(factor * ops.convert_to_tensor(weights))

    assert_as_finite_differences(function, x, direction, way)


def test_what_is_not_a_number_is_no_zero():
    """Nor is it passed over in silence."""
    x = np.full((6, 10), np.nan, "float32")
    assert np.isnan(ops.convert_to_numpy(orthogonalize(x))).all()


if keras.backend.backend() == "jax":

    @pytest.mark.parametrize("schedule", ["jordan", "auto"])
    def test_forward_derivatives_at_zero_are_zero(rng, schedule):
        import jax

        x = rng.standard_normal((2, 6, 10)).astype("float32")
        x[0] = 0.0
        _, tangent = jax.jvp(
            lambda x: orthogonalize(x, schedule), (x,), (np.ones_like(x),)
        )
        np.testing.assert_array_equal(tangent[0], 0.0)
        assert np.isfinite(tangent[1]).all()
        assert np.abs(tangent[1]).max() > 1e-3
