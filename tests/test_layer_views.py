"""Each kind of layer: which of its variables are hidden matrices, and in which view."""

import keras
import numpy as np
import pytest

from keras_muon import MatrixView
from keras_muon.layer_views import role_of
from keras_muon.roles import role_by_name
from keras_muon.sublayers import owned_variables, sublayers

layers = keras.layers

# Expected (batch axes, in axes, out axes); a text is the reason for no matrix.
BIAS, GAIN, SHIFT = "bias", "gain", "shift"
FACTOR, EMBEDDING, FILTER = "low-rank factor", "embedding", "one filter per channel"
PLAIN = ((), (0,), (1,))
PROJECTION = {"kernel": ((), (0,), (1, 2)), "bias": BIAS}
OUTPUT = {"kernel": ((), (0, 1), (2,)), "bias": BIAS}
DENSE = {"kernel": PLAIN, "bias": BIAS}
RECURRENT = {"kernel": PLAIN, "recurrent_kernel": PLAIN, "bias": BIAS}


def below(prefix, roles):
    """The same roles one layer further in."""
    return {f"{prefix}/{name}": role for name, role in roles.items()}


ATTENTION = {
    **below("query", PROJECTION),
    **below("key", PROJECTION),
    **below("value", PROJECTION),
    **below("attention_output", OUTPUT),
}


def recurrent_convolution(rank):
    axes = ((), tuple(range(rank + 1)), (rank + 1,))
    return {"kernel": axes, "recurrent_kernel": axes, "bias": BIAS}


# For each case a layer, the shape it is built for, and what its variables are.
CASES = {
    "Dense": (layers.Dense(4), (None, 6), DENSE),
    "Embedding": (layers.Embedding(9, 4), (None, 6), {"embeddings": EMBEDDING}),
    "ReversibleEmbedding": (
        layers.ReversibleEmbedding(9, 4, tie_weights=False),
        (None, 6),
        {"embeddings": EMBEDDING, "reverse_embeddings": "output head"},
    ),
    "LayerNormalization of two axes": (
        layers.LayerNormalization(axis=(-2, -1)),
        (None, 5, 6),
        {"gamma": GAIN, "beta": SHIFT},
    ),
    "BatchNormalization": (
        layers.BatchNormalization(),
        (None, 6),
        {"gamma": GAIN, "beta": SHIFT},
    ),
    "GroupNormalization": (
        layers.GroupNormalization(2),
        (None, 5, 6),
        {"gamma": GAIN, "beta": SHIFT},
    ),
    "RMSNormalization": (layers.RMSNormalization(), (None, 6), {"scale": GAIN}),
    "PReLU": (layers.PReLU(), (None, 5, 6), {"alpha": "slope"}),
    "TimeDistributed": (
        layers.TimeDistributed(layers.Dense(4, name="dense")),
        (None, 3, 6),
        below("dense", DENSE),
    ),
    "SpectralNormalization": (
        layers.SpectralNormalization(layers.Dense(4, name="dense")),
        (None, 6),
        below("dense", DENSE),
    ),
    "GroupQueryAttention": (
        layers.GroupQueryAttention(5, num_query_heads=4, num_key_value_heads=2),
        ((None, 7, 6), (None, 7, 6)),
        ATTENTION,
    ),
    "MultiHeadAttention": (
        layers.MultiHeadAttention(4, key_dim=5),
        ((None, 7, 6), (None, 7, 6)),
        ATTENTION,
    ),
    "SimpleRNN": (
        layers.SimpleRNN(4),
        (None, 3, 6),
        below("simple_rnn_cell", RECURRENT),
    ),
    "LSTM": (layers.LSTM(4), (None, 3, 6), below("lstm_cell", RECURRENT)),
    "GRU": (layers.GRU(4), (None, 3, 6), below("gru_cell", RECURRENT)),
    "LSTMCell": (layers.LSTMCell(4), (None, 6), RECURRENT),
    "RNN of stacked cells": (
        layers.RNN([layers.GRUCell(4, name="one"), layers.LSTMCell(5, name="two")]),
        (None, 3, 6),
        below("stacked_rnn_cells/one", RECURRENT)
        | below("stacked_rnn_cells/two", RECURRENT),
    ),
    "Bidirectional": (
        layers.Bidirectional(layers.LSTM(4, name="lstm")),
        (None, 3, 6),
        below("forward_lstm/lstm_cell", RECURRENT)
        | below("backward_lstm/lstm_cell", RECURRENT),
    ),
    "ConvLSTM1D": (
        layers.ConvLSTM1D(4, 2),
        (None, 3, 6, 2),
        below("conv_lstm_cell", recurrent_convolution(1)),
    ),
    "ConvLSTM2D": (
        layers.ConvLSTM2D(4, 2),
        (None, 3, 6, 6, 2),
        below("conv_lstm_cell", recurrent_convolution(2)),
    ),
    "SeparableConv1D": (
        layers.SeparableConv1D(4, 3, depth_multiplier=2),
        (None, 9, 5),
        {
            "depthwise_kernel": FILTER,
            "pointwise_kernel": ((), (0, 1), (2,)),
            "bias": BIAS,
        },
    ),
    "DepthwiseConv2D": (
        layers.DepthwiseConv2D(3, depth_multiplier=4),
        (None, 9, 9, 5),
        {"kernel": FILTER, "bias": BIAS},
    ),
}


LORA_CASES = {
    "Dense": (layers.Dense(4), (None, 6), "kernel", {"bias": BIAS}),
    "EinsumDense": (
        layers.EinsumDense("abc,cde->abde", (None, 4, 5)),
        (None, 7, 6),
        "kernel",
        {},
    ),
    "Conv2D": (layers.Conv2D(4, 3), (None, 9, 9, 5), "kernel", {"bias": BIAS}),
    "Embedding": (layers.Embedding(9, 4), (None, 6), "embeddings", {}),
}


@pytest.fixture(autouse=True)
def _zero_weights(monkeypatch):
    """Roles do not depend on values, and random ones cost JAX a compilation each."""
    add_weight = keras.Layer.add_weight

    def add_zeros(self, *args, **kwargs):
        kwargs["initializer"] = lambda shape, dtype: np.zeros(shape, dtype)
        return add_weight(self, *args, **kwargs)

    monkeypatch.setattr(keras.Layer, "add_weight", add_zeros)


def built(layer, shape):
    """The layer with its variables, whatever its number of inputs."""
    if not layer.built:
        layer.build(*shape) if isinstance(shape[0], tuple) else layer.build(shape)
    return layer


def roles_of(layer, parent=None, prefix=""):
    """Roles of all trainable variables below a layer, by names of layers."""
    own = [v for v in owned_variables(layer) if v.trainable]
    roles = {f"{prefix}{v.name}": role_of(layer, v, parent) for v in own}
    for child in sublayers(layer):
        roles |= roles_of(child, layer, f"{prefix}{child.name}/")
    return roles


def axes_or_reason(role):
    view = role.view
    return (view.batch_axes, view.in_axes, view.out_axes) if view else role.reason


@pytest.mark.parametrize("name", CASES)
def test_roles_of_every_variable(name):
    """Each layer's variables are the hidden matrices that its documentation tells."""
    layer, shape, expected = CASES[name]
    layer = built(layer, shape)
    roles = roles_of(layer)
    assert {key: axes_or_reason(role) for key, role in roles.items()} == expected
    assert all(role.certain for role in roles.values())
    assert len(roles) == len(layer.trainable_variables)


@pytest.mark.parametrize("name", LORA_CASES)
def test_low_rank_factors_are_no_matrices(name):
    """`enable_lora` freezes the table or kernel and adds two factors for AdamW."""
    layer, shape, frozen, others = LORA_CASES[name]
    layer = built(layer, shape)
    layer.enable_lora(2)
    factors = {f"lora_{frozen}_{letter}": FACTOR for letter in "ab"}
    roles = {key: axes_or_reason(role) for key, role in roles_of(layer).items()}
    assert roles == factors | others


@pytest.mark.parametrize("extents", [(), (6,), (6, 1), (1, 1, 6), (1, 1)])
def test_vectors_in_disguise_are_proven_by_shape(extents):
    """A shape with fewer than two real axes is no matrix, whatever its name."""
    variable = keras.Variable(keras.ops.ones(extents), name="kernel")
    assert role_by_name(variable).reason == "not a matrix"
    assert role_by_name(variable).certain


@pytest.mark.parametrize("name", ["kernel", "w", "bias_kernel", "alphabet"])
def test_names_that_prove_nothing(name):
    """Known names are compared as a whole, and a matrix is left open."""
    variable = keras.Variable(keras.ops.ones((6, 4)), name=name)
    assert role_by_name(variable) is None


def test_subclasses_of_known_layers_are_known(backend):
    """A user's subclass of Dense keeps its view; another name in it is unknown."""

    class Scaled(layers.Dense):
        def build(self, input_shape):
            super().build(input_shape)
            self.mixing = self.add_weight(shape=(5, 5), name="mixing")

    roles = roles_of(built(Scaled(4), (None, 6)))
    assert axes_or_reason(roles["kernel"]) == PLAIN
    assert roles["mixing"].view is None
    assert not roles["mixing"].certain
    assert roles["mixing"].reason == "unknown layer Scaled"


def test_the_view_knows_the_shape():
    """Role and variable agree on the shape, so that the optimizer can use it."""
    layer = built(layers.Dense(4), (None, 6))
    assert role_of(layer, layer.kernel).view == MatrixView((6, 4), (0,), (1,))
