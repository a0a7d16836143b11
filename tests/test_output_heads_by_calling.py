"""Heads of models and layers that have a `call` of their own: what is called last."""

import keras
import pytest
from models_with_calls import (
    FEATURES,
    TOKENS,
    AroundAGraph,
    Block,
    BuiltByShape,
    Dictionary,
    FeaturesAndTokens,
    HeadFirst,
    InList,
    Pair,
    Recurrent,
    Residual,
    Tied,
    TiedByVariable,
    Tokens,
    TwoArguments,
    TwoShapes,
    dense,
    named_heads,
)

from keras_muon.output_heads import output_heads
from keras_muon.sublayers import weighted_leaves

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
    "residual": (Residual, (FEATURES,), {}),
}
TIED = {"matrix": Tied, "variable": TiedByVariable}


@pytest.mark.parametrize("name", CALLED)
def test_head_of_a_subclassed_model(name):
    """The layer that `call` uses last, whatever the order of creation and inputs."""
    kind, args, kwargs = CALLED[name]
    model = kind()
    model(*args, **kwargs)
    assert named_heads(model) == {"head"}


@pytest.mark.parametrize("kind", TIED.values(), ids=TIED)
def test_a_tied_head_that_is_no_layer(kind):
    """The last layer that is called is hidden then."""
    model = kind()
    model(TOKENS)
    assert named_heads(model) == set()
    assert output_heads(model).proven


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
