"""Training loops without `fit`, as each backend writes them, end where `fit` ends."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

BATCH = 4

# Largest error seen: 2.8e-7. One batch fewer is 0.04 off.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def data():
    numbers = np.random.default_rng(2)
    shapes = (16, 8), (16, 3)
    return [numbers.standard_normal(shape).astype("float32") for shape in shapes]


@pytest.fixture(scope="module")
def fitted(data):
    """The weights after `fit`, with one matrix after the other."""
    model = new_model()
    model.compile(optimizer=Muon(0.05, batched=False), loss="mse")
    model.fit(*data, batch_size=BATCH, shuffle=False, verbose=0)
    return flat(model)


def new_model():
    keras.utils.set_random_seed(17)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, activation="tanh", use_bias=False),
            keras.layers.Dense(8, activation="tanh", use_bias=False),
            keras.layers.Dense(3),
        ]
    )


def batches(data):
    for start in range(0, len(data[0]), BATCH):
        yield [array[start : start + BATCH] for array in data]


def flat(model):
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def mean_square(predicted, wanted):
    return keras.ops.mean(keras.ops.square(predicted - wanted))


def compiled_stateless(model, optimizer, data):
    """JAX: `stateless_apply` inside jit."""
    import jax

    def loss(trainable, x, y):
        predicted, _ = model.stateless_call(trainable, [], x)
        return mean_square(predicted, y)

    @jax.jit
    def step(trainable, state, x, y):
        gradients = jax.grad(loss)(trainable, x, y)
        return optimizer.stateless_apply(state, gradients, trainable)

    optimizer.build(model.trainable_variables)
    trainable = [v.value for v in model.trainable_variables]
    state = [v.value for v in optimizer.variables]
    for x, y in batches(data):
        trainable, state = step(trainable, state, x, y)
    for variable, value in zip(model.trainable_variables, trainable, strict=True):
        variable.assign(value)


def gradients_by_jax(model, optimizer, data):
    """JAX: gradients outside, `apply` with side effects."""
    import jax

    def loss(trainable, x, y):
        predicted, _ = model.stateless_call(trainable, [], x)
        return mean_square(predicted, y)

    for x, y in batches(data):
        values = [v.value for v in model.trainable_variables]
        gradients = jax.grad(loss)(values, x, y)
        optimizer.apply(gradients, model.trainable_variables)


def tape_in_a_function(model, optimizer, data):
    """TensorFlow: the optimizer is built while a tf.function is traced."""
    import tensorflow as tf

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = mean_square(model(x), y)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    for x, y in batches(data):
        step(x, y)


def tape_and_pairs(model, optimizer, data):
    """TensorFlow, eagerly: `apply_gradients` with pairs."""
    import tensorflow as tf

    for x, y in batches(data):
        with tf.GradientTape() as tape:
            loss = mean_square(model(x), y)
        gradients = tape.gradient(loss, model.trainable_variables)
        pairs = zip(gradients, model.trainable_variables, strict=True)
        optimizer.apply_gradients(pairs)


def backward_without_gradients(model, optimizer, data):
    """torch: the step stands under `torch.no_grad`, as in Keras' guide."""
    import torch

    for x, y in batches(data):
        model.zero_grad()
        mean_square(model(x), keras.ops.convert_to_tensor(y)).backward()
        gradients = [v.value.grad for v in model.trainable_variables]
        with torch.no_grad():
            optimizer.apply(gradients, model.trainable_variables)


def backward_and_pairs(model, optimizer, data):
    """torch: nobody thought of `torch.no_grad`, and the step takes pairs."""
    for x, y in batches(data):
        model.zero_grad()
        mean_square(model(x), keras.ops.convert_to_tensor(y)).backward()
        gradients = [v.value.grad for v in model.trainable_variables]
        pairs = zip(gradients, model.trainable_variables, strict=True)
        optimizer.apply_gradients(pairs)


LOOPS = {
    "jax": [compiled_stateless, gradients_by_jax],
    "tensorflow": [tape_in_a_function, tape_and_pairs],
    "torch": [backward_without_gradients, backward_and_pairs],
}[keras.backend.backend()]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_ends_where_fit_ends(loop, data, fitted):
    """Same batches, same weights; the routes are found without `fit`, too."""
    model, optimizer = new_model(), Muon(0.05, batched=True)
    loop(model, optimizer, data)
    np.testing.assert_allclose(flat(model), fitted, rtol=0, atol=TOLERANCE)
    assert [route.rule for route in optimizer.routes].count("muon") == 2


def test_a_missing_batch_would_be_seen(data, fitted):
    """The comparison above can fail: without the last batch the weights differ."""
    model = new_model()
    LOOPS[0](model, Muon(0.05), [array[:-BATCH] for array in data])
    assert np.abs(flat(model) - fitted).max() > 1000 * TOLERANCE
