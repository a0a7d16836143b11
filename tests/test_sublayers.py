"""Layers inside layers: every one is found, once, and every variable has its owner."""

import keras
import numpy as np
import pytest

from keras_muon.sublayers import owned_variables, sublayers, weighted_leaves

layers = keras.layers


@pytest.fixture(autouse=True)
def _zero_weights(monkeypatch):
    """Values do not matter here, and random ones cost JAX a compilation each."""
    add_weight = keras.Layer.add_weight

    def add_zeros(self, *args, **kwargs):
        kwargs["initializer"] = lambda shape, dtype: np.zeros(shape, dtype)
        return add_weight(self, *args, **kwargs)

    monkeypatch.setattr(keras.Layer, "add_weight", add_zeros)


def dense(name, inputs=None):
    layer = layers.Dense(4, name=name)
    if inputs:
        layer.build((None, inputs))
    return layer


class Holder(layers.Layer):
    """A layer whose attributes are given from outside."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


def names(found):
    return [layer.name for layer in found]


CONTAINERS = {
    "attributes": lambda a, b: {"first": a, "second": b},
    "list": lambda a, b: {"stack": [a, b]},
    "tuple": lambda a, b: {"stack": (a, b)},
    "dictionary": lambda a, b: {"stack": {"x": a, "y": b}},
    "lists in a dictionary": lambda a, b: {"stack": {"x": [a], "y": [(b,)]}},
    "mixed with other values": lambda a, b: {"n": 3, "stack": [None, a, "text", b]},
    "twice": lambda a, b: {"first": a, "stack": [a, b], "second": b},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_sublayers_in_order_and_once(name):
    """Wherever Keras tracks layers they are found, in the order of creation."""
    holder = Holder(**CONTAINERS[name](dense("a"), dense("b")))
    assert names(sublayers(holder)) == ["a", "b"]


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name != "twice"])
def test_layers_that_keras_does_not_track(name):
    """Attributes are looked at themselves, not only what Keras made of them."""
    holder = Holder()
    for key, value in CONTAINERS[name](dense("a"), dense("b")).items():
        object.__setattr__(holder, key, value)
    assert names(sublayers(holder)) == ["a", "b"]


def test_sublayers_in_a_set():
    """A set has no order, but its layers are found."""
    holder = Holder(stack={dense("a"), dense("b")})
    assert set(names(sublayers(holder))) == {"a", "b"}


def test_only_direct_sublayers():
    """A layer inside a sublayer is the sublayer's own."""
    inner = Holder(layer=dense("a"))
    assert sublayers(Holder(inner=inner)) == [inner]


def test_a_layer_that_refers_to_itself_ends():
    """Neither a layer among its own attributes nor a list inside itself is a trap."""
    holder = Holder(first=dense("a"))
    around = [holder]
    around.append(around)
    object.__setattr__(holder, "around", around)
    assert names(sublayers(holder)) == ["a"]


def test_a_layer_that_refers_to_its_parent_ends():
    """Two layers that hold each other have their own leaves both."""
    child = Holder(layer=dense("a", 3))
    parent = Holder(child=child, layer=dense("b", 3))
    object.__setattr__(child, "parent", parent)
    assert set(names(weighted_leaves(parent))) == {"a", "b"}


def transformer_block():
    """A model with most ways of holding layers."""
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = layers.LayerNormalization()(x + inputs)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(8))(x)
    x = keras.Sequential([layers.Dense(8), layers.BatchNormalization()])(x)
    return keras.Model(inputs, layers.SpectralNormalization(layers.Dense(4))(x))


def walked(layer, seen):
    """A layer and all below it, once each."""
    if id(layer) not in seen:
        seen.add(id(layer))
        yield layer
        for child in sublayers(layer):
            yield from walked(child, seen)


def test_every_variable_has_one_owner():
    """The owned variables of all layers are the model's weights, each once."""
    model = transformer_block()
    owned = [v for layer in walked(model, set()) for v in owned_variables(layer)]
    weights = {id(variable) for variable in model.weights}
    assert {id(variable) for variable in owned} >= weights
    assert len([v for v in owned if id(v) in weights]) == len(model.weights) == 27


def test_leaves_own_all_weights_of_the_model():
    """The same through the leaves: none is missing, none is a container."""
    leaves = weighted_leaves(transformer_block())
    kinds = sorted(type(leaf).__name__ for leaf in leaves)
    assert kinds == sorted(
        ["EinsumDense"] * 4
        + ["LayerNormalization", "BatchNormalization", "SpectralNormalization"]
        + ["GRUCell"] * 2
        + ["Dense"] * 3
    )


def test_owned_variables_are_trainable_or_not():
    """Moving averages belong to their layer as gains do."""
    norm = layers.BatchNormalization()
    norm.build((None, 4))
    found = [variable.name for variable in owned_variables(norm)]
    assert found == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_a_layer_with_variables_and_sublayers_is_a_leaf_beside_them():
    """What it owns itself makes it a leaf; its sublayers are leaves too."""
    holder = Holder(layer=dense("inside", 3))
    gain = holder.add_weight(shape=(4,), name="gain")
    assert owned_variables(holder) == [gain]
    assert names(weighted_leaves(holder)) == [holder.name, "inside"]


def test_shared_layers_are_one_leaf():
    """A layer held by two others is found once."""
    shared = dense("shared", 3)
    holder = Holder(left=Holder(layer=shared), right=Holder(layer=shared))
    assert weighted_leaves(holder) == [shared]


def test_a_variable_that_two_layers_hold_has_two_owners():
    """Tying by assignment shows in both layers; the walk combines their roles."""
    first = dense("first", 4)
    second = Holder(tied=first.kernel)
    assert owned_variables(first) == [first.kernel, first.bias]
    assert owned_variables(second) == [first.kernel]


def test_layers_without_weights_are_no_leaves():
    """Dropout and the like are passed over."""
    holder = Holder(stack=[layers.Dropout(0.1), layers.ReLU(), dense("a", 3)])
    assert names(weighted_leaves(holder)) == ["a"]
    assert weighted_leaves(layers.ReLU()) == []
