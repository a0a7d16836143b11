"""Loss scaling: static and dynamic, plain and in mixed precision."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

FACTOR = 1000.0

# Newton-Schulz and AdamW forget the scale of a gradient. Only this epsilon, of the
# size of the gradients themselves, and clipping remember it.
REMEMBERING = {"adam_epsilon": 0.1}

# Largest error seen: 6.0e-8. A loss that stays scaled puts a weight 0.011 off.
TOLERANCE = 1e-5


def new_model():
    keras.utils.set_random_seed(13)
    return keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(7, 6),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )


@pytest.fixture
def data(rng):
    return rng.integers(0, 4, (16, 4)), rng.standard_normal((16, 2))


def fitted(data, loss_weight=1.0, **arguments):
    model = new_model()
    optimizer = Muon(0.02, clipvalue=0.02, **REMEMBERING, **arguments)
    model.compile(optimizer=optimizer, loss="mse", loss_weights=[loss_weight])
    model.fit(*data, batch_size=8, shuffle=False, verbose=0)
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def test_a_static_factor_changes_nothing(data):
    """The gradients are divided by `loss_scale_factor` before anything else."""
    expected = fitted(data)
    scaled = fitted(data, loss_scale_factor=FACTOR)
    np.testing.assert_allclose(scaled, expected, rtol=0, atol=TOLERANCE)
    # The comparison can fail: a loss that stays scaled leads to other weights.
    difference = np.abs(fitted(data, loss_weight=FACTOR) - expected)
    assert difference.max() > 500 * TOLERANCE


@pytest.fixture
def mixed_float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("mixed_float16")
def test_mixed_precision_trains(data):
    """In mixed_float16 the loss falls, and Muon moves the hidden matrix."""
    model, inner = new_model(), Muon(0.05)
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    model.compile(optimizer=optimizer, loss="mse")
    hidden = model.get_layer("hidden")
    before = hidden.get_weights()[0]
    fit = model.fit(*data, batch_size=8, epochs=10, shuffle=False, verbose=0)
    losses = fit.history["loss"]
    rules = {route.path.rpartition("/hidden/")[2]: route.rule for route in inner.routes}
    assert rules["kernel"] == "muon"
    # An entry moves by 0.26 and more; the last loss is 0.38 of the first or less.
    assert np.abs(hidden.get_weights()[0] - before).max() > 0.1
    assert losses[-1] < 0.6 * losses[0]


def test_a_step_without_finite_gradients_is_skipped():
    """LossScaleOptimizer halves its scale; weights, state and counter stay."""
    kernel = keras.Variable(np.eye(4), name="kernel", dtype="float32")
    inner = Muon(0.1, routes={"kernel": "muon"})
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
    optimizer.build([kernel])
    watched = [kernel, *inner.variables]
    gradient = np.arange(16.0, dtype="float32").reshape(4, 4)
    spoiled = np.where(gradient == 6.0, np.inf, gradient).astype("float32")

    def step(values):
        apply(optimizer, [keras.ops.convert_to_tensor(values)], [kernel])
        return [keras.ops.convert_to_numpy(v).copy() for v in watched]

    before = step(gradient)
    for now, then in zip(step(spoiled), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert float(keras.ops.convert_to_numpy(optimizer.dynamic_scale)) == 4.0
    assert np.abs(step(gradient)[0] - before[0]).max() > 0.01


def apply(optimizer, gradients, variables):
    """Take a step; on JAX LossScaleOptimizer can only do it statelessly."""
    if keras.backend.backend() != "jax":
        optimizer.apply(gradients, variables)
        return
    state = optimizer.variables
    values = optimizer.stateless_apply(
        [v.value for v in state], gradients, [v.value for v in variables]
    )
    kept = [*variables, *state]
    for variable, value in zip(kept, [*values[0], *values[1]], strict=True):
        variable.assign(value)
