"""A small GPT with every kind of variable, and gradients for it."""

import keras
import numpy as np

from keras_muon import Muon

WIDTH, HEADS, VOCABULARY = 16, 2, 20


def gpt():
    """Two blocks: attention with einsum kernels, biases, gains, embedding, head."""
    layers = keras.layers
    tokens = keras.Input((8,), dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH)(tokens)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(y, y)
        y = layers.Dense(4 * WIDTH, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(WIDTH)(y)
    return keras.Model(tokens, layers.Dense(VOCABULARY)(x))


def built(model, **arguments):
    model.compile(Muon.for_model(model, **arguments), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def gradients_of(rng, parameters):
    """{name: gradient}, at scales from 0.01 to 10."""
    scales = np.geomspace(1e-2, 10.0, len(parameters))
    return {
        name: (scale * rng.standard_normal(value.shape)).astype(value.dtype)
        for scale, (name, value) in zip(scales, parameters.items(), strict=True)
    }
