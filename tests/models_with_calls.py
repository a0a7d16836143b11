"""Models and layers that have a `call` of their own, each with a layer `head`."""

import keras
import numpy as np

from keras_muon.output_heads import output_heads
from keras_muon.sublayers import weighted_leaves

layers = keras.layers
FEATURES = np.ones((2, 8), "float32")
TOKENS = np.zeros((2, 5), "int32")


def dense(name, units=4):
    """A Dense layer without random values: they cost JAX a compilation per shape."""
    return layers.Dense(units, name=name, kernel_initializer="zeros")


def named_heads(model):
    """Names of the heads."""
    heads = output_heads(model).ids
    return {leaf.name for leaf in weighted_leaves(model) if id(leaf) in heads}


class HeadFirst(keras.Model):
    """Its head is created before the trunk."""

    def __init__(self):
        super().__init__()
        self.head = dense("head")
        self.trunk = dense("trunk")

    def call(self, x, training=None):
        return keras.ops.softmax(self.head(self.trunk(x)))


class Tokens(keras.Model):
    """Its `call` takes token numbers, and nothing but integers."""

    def __init__(self):
        super().__init__()
        self.head = dense("head")
        self.trunk = dense("trunk")

    def call(self, tokens):
        if not keras.backend.is_int_dtype(tokens.dtype):
            raise TypeError("tokens are integers")
        return self.head(self.trunk(keras.ops.one_hot(tokens, 8)))


class Residual(keras.Model):
    """A stream of branches, of which the head is the last."""

    def __init__(self):
        super().__init__()
        self.branches = [dense(name, 8) for name in ("first", "second", "head")]

    def call(self, x):
        for branch in self.branches:
            x = x + keras.ops.tanh(branch(x))
        return x


class Tied(keras.Model):
    """Its head is the table of its embedding, transposed."""

    def __init__(self):
        super().__init__()
        self.table = layers.Embedding(9, 4, name="table")
        self.trunk = dense("trunk")

    def call(self, tokens):
        x = keras.ops.tanh(self.trunk(self.table(tokens)))
        return x @ keras.ops.transpose(self.table.embeddings)


class TiedByVariable(Tied):
    """The same by the variable itself, in the dtype of the features."""

    def call(self, tokens):
        x = self.trunk(self.table(tokens))
        table = keras.ops.cast(self.table.embeddings, x.dtype)
        return keras.ops.einsum("btd,vd->btv", x, table)


class TwoArguments(HeadFirst):
    """Two tensors as two arguments, the second under its name."""

    def call(self, a, b=None, training=None):
        return self.head(self.trunk(a) + self.trunk(b))


class TwoShapes(TwoArguments):
    """The same, with a `build` that Keras hands both shapes to."""

    def build(self, a_shape, b_shape):
        self.trunk.build(a_shape)
        self.head.build((*a_shape[:-1], 4))


class Dictionary(HeadFirst):
    def call(self, inputs):
        return self.head(self.trunk(inputs["a"]) + self.trunk(inputs["b"]))


class Pair(HeadFirst):
    def call(self, inputs):
        first, second = inputs
        return self.head(self.trunk(first) + self.trunk(second))


class FeaturesAndTokens(HeadFirst):
    """One input must be of floats, the other of integers."""

    def call(self, inputs):
        if not keras.backend.is_int_dtype(inputs["tokens"].dtype):
            raise TypeError("tokens are integers")
        if not keras.backend.is_float_dtype(inputs["features"].dtype):
            raise TypeError("features are floats")
        words = keras.ops.mean(keras.ops.one_hot(inputs["tokens"], 8), axis=1)
        return self.head(self.trunk(words + inputs["features"]))


class InList(keras.Model):
    """Its layers are in a list, called backwards."""

    def __init__(self):
        super().__init__()
        self.stack = [dense("head", 8), dense("two", 8), dense("three", 8)]

    def call(self, x):
        for layer in reversed(self.stack):
            x = layer(x)
        return x


class AroundAGraph(keras.Model):
    """A model of its own `call` that ends in a functional one."""

    def __init__(self):
        super().__init__()
        self.graph = keras.Sequential([dense("inside"), dense("head")])
        self.trunk = dense("trunk")

    def call(self, x):
        return self.graph(self.trunk(x))


class Block(layers.Layer):
    """A composite layer; it creates its second projection first."""

    def __init__(self, name):
        super().__init__(name=name)
        self.down = dense(f"{name}_down", 8)
        self.up = dense(f"{name}_up")

    def build(self, input_shape):
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], 4))

    def call(self, x):
        return x + self.down(self.up(x))


class Recurrent(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = dense("head")
        self.memory = layers.SimpleRNN(4, recurrent_initializer="zeros")

    def call(self, x):
        return self.head(self.memory(x[:, None, :]))


class BuiltByShape(HeadFirst):
    """Its variables are there before any data."""

    def build(self, input_shape):
        self.trunk.build(input_shape)
        self.head.build((*input_shape[:-1], 4))
