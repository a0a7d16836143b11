"""Heads of models and layers that have a `call` of their own: what is called last."""

import keras
import numpy as np
import pytest

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


CALLED = {
    "head created first": (HeadFirst, (FEATURES,), {}),
    "token inputs": (Tokens, (TOKENS,), {}),
    "two arguments": (TwoArguments, (FEATURES,), {"b": FEATURES}),
    "two arguments and shapes": (TwoShapes, (FEATURES,), {"b": FEATURES}),
    "dictionary": (Dictionary, ({"a": FEATURES, "b": FEATURES},), {}),
    "tuple": (Pair, ((FEATURES, FEATURES),), {}),
    "list": (Pair, ([FEATURES, FEATURES],), {}),
    "features and tokens": (
        FeaturesAndTokens,
        ({"features": FEATURES, "tokens": TOKENS},),
        {},
    ),
    "layers in a list": (InList, (FEATURES,), {}),
    "graph inside": (AroundAGraph, (FEATURES,), {}),
    "recurrent": (Recurrent, (FEATURES,), {}),
}


@pytest.mark.parametrize("name", CALLED)
def test_head_of_a_subclassed_model(name):
    """The layer that `call` uses last, whatever the order of creation and inputs."""
    kind, args, kwargs = CALLED[name]
    model = kind()
    model(*args, **kwargs)
    assert named_heads(model) == {"head"}


def test_head_of_a_model_that_was_built_by_shape():
    """`build(input_shape)` is enough: no data was ever seen."""
    model = BuiltByShape()
    model.build((None, 8))
    assert named_heads(model) == {"head"}


def test_composite_layer_as_last_operation():
    """Only the last weight inside it is the head, in a graph as in a stack."""
    inputs = keras.Input((8,))
    model = keras.Model(inputs, Block("last")(Block("first")(inputs)))
    assert named_heads(model) == {"last_down"}
    stack = keras.Sequential([keras.Input((8,)), Block("first"), Block("last")])
    assert named_heads(stack) == {"last_down"}


def test_composite_layer_on_its_own():
    """A bare layer may stand in for the model."""
    block = Block("block")
    block.build((None, 8))
    assert named_heads(block) == {"block_down"}


def test_subclassed_model_as_last_operation():
    """A model with a `call` of its own, inside a graph."""
    inputs = keras.Input((8,))
    model = keras.Model(inputs, HeadFirst()(dense("first", 8)(inputs)))
    assert named_heads(model) == {"head"}


def test_model_that_was_built_without_shapes():
    """Nothing says how to call it: the layer created last is taken, unproven."""

    class Shapeless(BuiltByShape):
        def build(self, input_shape=None):
            super().build((None, 8))

    model = Shapeless()
    model.build()
    heads = output_heads(model)
    assert heads == ({id(weighted_leaves(model)[-1])}, False)


class Inner(keras.layers.Layer):
    """Two matrices in a row."""

    def __init__(self):
        super().__init__()
        self.a = keras.layers.Dense(16)
        self.b = keras.layers.Dense(8)

    def call(self, x):
        self.add_loss(keras.ops.sum(x) * 0.0)
        return self.b(self.a(x))


class Outer(keras.layers.Layer):
    """A sum of branches, one of which is composite."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.norm = keras.layers.LayerNormalization()

    def call(self, x):
        return self.norm(x) + self.inner(x)


def test_composite_layers_inside_composite_layers():
    """Each is run on its own while the outer one is; both are left as they were."""
    outer = Outer()
    inputs = keras.Input((8,))
    model = keras.Model(inputs, outer(inputs))
    layers = [outer, outer.inner, outer.inner.a, outer.norm]
    before = [(dict(vars(layer)), len(layer._inbound_nodes)) for layer in layers]
    assert output_heads(model).ids == {id(outer.inner.b)}
    for layer, (attributes, nodes) in zip(layers, before, strict=True):
        assert vars(layer).keys() == attributes.keys()
        assert len(layer._inbound_nodes) == nodes


class Counting(keras.layers.Layer):
    """A block whose code cannot be run on symbolic tensors."""

    def __init__(self):
        super().__init__()
        self.wide = keras.layers.Dense(16)
        self.narrow = keras.layers.Dense(8)

    def build(self, shape):
        self.wide.build(shape)
        self.narrow.build((*shape[:-1], 16))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def call(self, x):
        if any(extent is None for extent in x.shape) or x.shape[0] == 16:
            raise ValueError("not symbolically")
        return x + self.narrow(self.wide(x))


def test_no_head_before_a_norm_that_ends_a_stream():
    """What stands before the last norm is a block, even if it cannot be run."""
    inputs = keras.Input((8,))
    x = keras.layers.LayerNormalization()(Counting()(inputs))
    assert output_heads(keras.Model(inputs, x)) == (set(), True)
