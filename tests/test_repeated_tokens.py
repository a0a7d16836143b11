"""Embeddings whose tokens repeat: sparse gradients act like the dense ones."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

TOKENS, WIDTH = 7, 4
BATCHES = np.array([[[1, 1, 1, 2], [1, 5, 5, 1]], [[2, 2, 0, 1], [5, 1, 1, 1]]])

SETTINGS = [
    pytest.param({}, id="plain"),
    pytest.param(
        {"clipnorm": 0.05, "gradient_accumulation_steps": 2}, id="accumulating"
    ),
    pytest.param(
        {"global_clipnorm": 0.05, "loss_scale_factor": 1024.0}, id="loss_scaled"
    ),
]

# Largest error seen: 0. Where the base class of Keras squares slices before it sums
# them, an entry of the table ends 0.17 off.
TOLERANCE = 1e-5


def trained_table(lookup, settings):
    """Return the table after two epochs of two batches."""
    keras.utils.set_random_seed(13)
    shape = (4,) if lookup else (4, TOKENS)
    inputs = keras.Input(shape, dtype="int32" if lookup else "float32")
    table = keras.layers.Embedding(TOKENS, WIDTH)
    if not lookup:
        table = keras.layers.Dense(WIDTH, use_bias=False)
    pooled = keras.layers.Flatten()(table(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    numbers = np.random.default_rng(1)
    model.set_weights([numbers.standard_normal(v.shape) for v in model.weights])
    model.compile(optimizer=Muon(0.1, routes={".*": "adamw"}, **settings), loss="mse")
    data = BATCHES.reshape(-1, 4) if lookup else np.eye(TOKENS)[BATCHES.reshape(-1, 4)]
    targets = numbers.standard_normal((len(data), 2))
    model.fit(data, targets, batch_size=2, epochs=2, shuffle=False, verbose=0)
    return model.get_weights()[0]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_lookup_is_a_product_with_one_hot_rows(settings):
    """An Embedding and a Dense layer on one-hot rows learn the same table."""
    looked_up = trained_table(lookup=True, settings=settings)
    multiplied = trained_table(lookup=False, settings=settings)
    np.testing.assert_allclose(looked_up, multiplied, rtol=0, atol=TOLERANCE)


if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def test_embeddings_have_sparse_gradients_here():
        """What this file is about: on TensorFlow a lookup's gradient is sparse."""
        layer = keras.layers.Embedding(TOKENS, WIDTH)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(BATCHES[0]))
        (gradient,) = tape.gradient(loss, layer.trainable_variables)
        assert isinstance(gradient, tf.IndexedSlices)

    def test_slices_of_one_row_are_summed_first():
        """Slices of one token count as their sum, in both moments of AdamW."""
        rows = np.array([[1.0, -2.0], [3.0, 0.5], [-1.0, 1.0]], "float32")
        dense = np.array([[0.0, 0.0], [4.0, -1.5], [-1.0, 1.0]], "float32")
        results = []
        for values, tokens in ((rows, [1, 1, 2]), (dense, [0, 1, 2])):
            table = keras.Variable(np.ones((3, 2)), name="embeddings", dtype="float32")
            optimizer = Muon(0.1)
            for factor in (1.0, 0.1):
                slices = tf.IndexedSlices(factor * values, tf.constant(tokens), (3, 2))
                optimizer.apply([slices], [table])
            results.append(keras.ops.convert_to_numpy(table))
        np.testing.assert_allclose(*results, rtol=0, atol=TOLERANCE)
