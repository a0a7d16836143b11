"""`fit` under float16, bfloat16 and mixed_float16: matrices move, losses fall."""

import contextlib

import keras
import numpy as np
import pytest

from keras_muon import Muon

# Makes gradients whose norm is over 256: its square is beyond float16.
LARGE = 64.0


@contextlib.contextmanager
def policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def new_model(name):
    keras.utils.set_random_seed(19)
    with policy(name):
        return keras.Sequential(
            [
                keras.Input((16,)),
                keras.layers.Dense(16, use_bias=False, name="hidden"),
                keras.layers.Dense(4, name="head"),
            ]
        )


@pytest.fixture
def data(rng):
    x = rng.standard_normal((32, 16))
    return x.astype("float32"), (x @ rng.standard_normal((16, 4))).astype("float32")


def fitted(model, optimizer, data, epochs=4, **arguments):
    """Return how far the hidden kernel moved, and the losses."""
    hidden = model.get_layer("hidden")
    before = np.asarray(hidden.get_weights()[0], "float32")
    model.compile(optimizer, "mse", jit_compile=keras.backend.backend() == "jax")
    fit = model.fit(*data, epochs=epochs, shuffle=False, verbose=0, **arguments)
    after = np.asarray(hidden.get_weights()[0], "float32")
    return np.abs(after - before).max(), fit.history["loss"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_pure_narrow_policies_train(dtype, data):
    """All weights are narrow; the loss falls to 0.31 all the same, or less."""
    model = new_model(dtype)
    moved, losses = fitted(model, Muon(0.05), data, batch_size=8)
    assert {v.dtype for v in model.weights} == {dtype}
    assert moved > 0.1
    assert losses[-1] < 0.5 * losses[0]


def with_large_gradients(data):
    """The inputs scaled so that a float16 sum of squared gradients overflows."""
    x, y = data
    return x, LARGE * y


def test_large_gradients_in_float16(data):
    """Where Keras' own Muon divides by an infinite norm, ours moves the matrix."""
    large = with_large_gradients(data)
    moved, losses = fitted(new_model("float16"), Muon(0.05), large, epochs=2)
    # An entry moves by 0.028 and more; that of Keras' own Muon by nothing at all.
    assert moved > 0.02
    assert losses[-1] < losses[0]


if keras.backend.backend() in ("jax", "tensorflow"):

    def test_the_muon_of_keras_stands_still_there(data):
        """The effect exists: on these backends the same gradients move nothing."""
        large = with_large_gradients(data)
        moved, _ = fitted(
            new_model("float16"), keras.optimizers.Muon(0.05), large, epochs=2
        )
        assert moved < 1e-6, moved


def test_an_overflow_in_mixed_float16_is_skipped(data):
    """The scale is halved; weights, momentum, moments and the count of steps stay."""
    model = new_model("mixed_float16")
    model.compile(Muon(0.05), "mse", jit_compile=keras.backend.backend() == "jax")
    x, y = data
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    inner = model.optimizer.inner_optimizer
    watched = [*model.weights, *inner.variables]

    def values():
        return [keras.ops.convert_to_numpy(v).copy() for v in watched]

    def scale():
        return float(keras.ops.convert_to_numpy(model.optimizer.dynamic_scale))

    before, scale_before = values(), scale()
    model.train_on_batch(np.full_like(x, 6e4), y)
    for now, then, variable in zip(values(), before, watched, strict=True):
        np.testing.assert_array_equal(now, then, err_msg=variable.path)
    assert scale() == scale_before / 2
    model.train_on_batch(x, y)
    hidden = model.weights.index(model.get_layer("hidden").kernel)
    assert np.abs(values()[hidden] - before[hidden]).max() > 0.01
