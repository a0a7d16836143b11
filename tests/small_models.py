"""A model of two layers with an optimizer that can be exported."""

import keras

from keras_muon import Muon


def built(optimizer=None, dtype="float32", **arguments):
    """A small model with a built optimizer; the arguments are the layer's."""
    model = keras.Sequential(
        [
            keras.Input((6,), dtype=dtype),
            keras.layers.Dense(8, name="a", dtype=dtype, **arguments),
            keras.layers.Dense(4, name="head", dtype=dtype),
        ],
        name="model",
    )
    model.compile(optimizer or Muon(0.02), "mse")
    model.optimizer.build(model.trainable_variables)
    return model
