"""Looking for heads runs the user's code, and must leave nothing behind."""

import keras
import numpy as np

from keras_muon.output_heads import output_heads
from keras_muon.sublayers import weighted_leaves

layers = keras.layers
FEATURES = np.ones((2, 8), "float32")


class HeadFirst(keras.Model):
    """Its head is created before the trunk."""

    def __init__(self):
        super().__init__()
        # Without random values, which cost JAX a compilation per shape.
        self.head = layers.Dense(4, name="head", kernel_initializer="ones")
        self.trunk = layers.Dense(4, name="trunk", kernel_initializer="ones")

    def build(self, input_shape):
        self.trunk.build(input_shape)
        self.head.build((*input_shape[:-1], 4))

    def call(self, x, training=None):
        return self.head(self.trunk(x))


class Noisy(HeadFirst):
    """State that an ordinary call would change, and losses it would add."""

    def __init__(self):
        super().__init__()
        self.norm = layers.BatchNormalization()
        self.drop = layers.Dropout(0.5)
        self.trunk.activity_regularizer = keras.regularizers.L2(0.1)

    def call(self, x, training=True):
        self.add_loss(keras.ops.sum(x))
        return self.head(self.drop(self.norm(self.trunk(x)), training=True))


class Failing(HeadFirst):
    """Cannot be run on symbolic tensors, and fails between its two layers."""

    def call(self, x):
        self.trunk(x)
        raise RuntimeError("needs data")


def sums(model):
    """One number for each variable and each loss of a model."""
    tensors = [*model.variables, *model.losses]
    return [float(keras.ops.stop_gradient(keras.ops.sum(x))) for x in tensors]


def test_probing_changes_nothing():
    """No moving average, seed, loss or patched method remains."""
    model = Noisy()
    model(FEATURES)
    before = sums(model)
    output_heads(model)
    assert sums(model) == before
    assert len(before) == len(model.variables) + 2
    assert all("call" not in vars(leaf) for leaf in weighted_leaves(model))


def test_a_method_that_the_user_replaced_is_restored():
    """A `call` set on the layer itself is there again after probing."""
    model = HeadFirst()
    model(FEATURES)
    original = model.head.call
    model.head.call = lambda *args, **kwargs: original(*args, **kwargs)
    replaced = model.head.call
    assert output_heads(model).ids == {id(model.head)}
    assert model.head.call is replaced


def test_model_that_cannot_be_run_symbolically():
    """The layer created last stands for the head, and is said not to be proven."""
    model = Failing()
    model.build((None, 8))
    heads = output_heads(model)
    assert heads == ({id(weighted_leaves(model)[-1])}, False)
    assert all("call" not in vars(leaf) for leaf in weighted_leaves(model))


def test_head_of_a_quantized_model():
    """A quantized head is called by another method and found all the same."""
    model = HeadFirst()
    model(FEATURES)
    model.head.quantize("int8")
    assert output_heads(model).ids == {id(model.head)}
