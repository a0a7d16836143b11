"""From a whole model to routes: who owns what, and what nobody can prove."""

import keras
import numpy as np
import pytest

from keras_muon.model_walk import routes_of_model, routes_of_variables

layers = keras.layers


@pytest.fixture(autouse=True)
def _zero_weights(monkeypatch):
    """Routes do not depend on values, and random ones cost JAX a compilation each."""
    add_weight = keras.Layer.add_weight

    def add_zeros(self, *args, **kwargs):
        kwargs["initializer"] = lambda shape, dtype: np.zeros(shape, dtype)
        return add_weight(self, *args, **kwargs)

    monkeypatch.setattr(keras.Layer, "add_weight", add_zeros)


def dense(name, units=8, **arguments):
    return layers.Dense(units, name=name, **arguments)


def table(model):
    """{path: rule or matrix shape, reason} of the trainable variables."""
    routes = routes_of_model(model, model.trainable_variables)
    return {
        r.path: r.matrix_view.matrix_shape if r.rule == "muon" else r.reason
        for r in routes
    }


def test_a_transformer_block_as_a_whole():
    """Every variable of a small decoder, against a table written by hand."""
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(20, 8, name="words")(inputs)
    attention = layers.MultiHeadAttention(2, 6, name="attention")
    x = layers.LayerNormalization(name="norm")(x + attention(x, x))
    x = x + dense("down")(dense("up", 32, activation="relu")(x))
    x = layers.Conv1D(8, 3, padding="causal", groups=2, name="mix")(x)
    model = keras.Model(inputs, dense("vocabulary", 20)(x))
    assert table(model) == {
        "words/embeddings": "embedding",
        "attention/query/kernel": (1, 8, 12),
        "attention/query/bias": "bias",
        "attention/key/kernel": (1, 8, 12),
        "attention/key/bias": "bias",
        "attention/value/kernel": (1, 8, 12),
        "attention/value/bias": "bias",
        "attention/attention_output/kernel": (1, 12, 8),
        "attention/attention_output/bias": "bias",
        "norm/gamma": "gain",
        "norm/beta": "shift",
        "up/kernel": (1, 8, 32),
        "up/bias": "bias",
        "down/kernel": (1, 32, 8),
        "down/bias": "bias",
        "mix/kernel": (2, 12, 4),
        "mix/bias": "bias",
        "vocabulary/kernel": "output head",
        "vocabulary/bias": "bias",
    }


class Tied(layers.Layer):
    """A layer of a user that holds a variable of another layer."""

    def __init__(self, variable, name):
        super().__init__(name=name)
        self.tied = variable

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(self.tied))


def test_from_state_to_state_is_no_head():
    """A recurrent kernel of the last layer is hidden; what reads its input is not."""
    inputs = keras.Input((5, 8))
    x = layers.SimpleRNN(8, return_sequences=True, name="first")(inputs)
    rows = table(keras.Model(inputs, layers.SimpleRNN(8, name="last")(x)))
    assert rows["last/simple_rnn_cell/recurrent_kernel"] == (1, 8, 8)
    assert rows["last/simple_rnn_cell/kernel"] == "output head"


def test_a_tied_embedding_stays_an_embedding():
    """An unknown layer that shares the table decides nothing, and warns of nothing."""
    words = layers.Embedding(20, 8, name="words")
    inputs = keras.Input((7,), dtype="int32")
    x = dense("hidden")(words(inputs))
    model = keras.Model(inputs, Tied(words.embeddings, "head")(x))
    assert len(model.trainable_variables) == 3
    routes = {r.path: r for r in routes_of_model(model, model.trainable_variables)}
    assert routes["words/embeddings"].reason == "embedding"
    assert routes["words/embeddings"].certain


def tied_kernel(hidden_in_the_middle):
    """A Dense kernel that a user's layer shares, before or after it."""
    hidden = dense("hidden")
    inputs = keras.Input((8,))
    x = hidden(inputs)
    x = Tied(hidden.kernel, "mirror")(x)
    return keras.Model(inputs, dense("head", 4)(x) if hidden_in_the_middle else x)


def test_a_kernel_shared_with_an_unknown_layer_keeps_its_view():
    """The Dense layer knows; the other does not, and so says nothing."""
    assert table(tied_kernel(True))["hidden/kernel"] == (1, 8, 8)


def test_a_kernel_shared_with_a_head_is_a_head():
    """If any of its layers is the model's last, the kernel is an output head."""
    assert table(tied_kernel(False))["hidden/kernel"] == "output head"


def test_another_use_of_a_kernel_wins():
    """A kernel that is a filter per channel to one of its layers is no matrix."""

    class TiedFilters(layers.DepthwiseConv1D):
        def build(self, input_shape):
            self.kernel, self.bias = mix.kernel, None

    mix = layers.Conv1D(6, 3, name="mix")
    inputs = keras.Input((9, 8))
    x = dense("between")(mix(inputs))
    x = layers.Flatten()(TiedFilters(3, depth_multiplier=6)(x))
    model = keras.Model(inputs, dense("head", 4)(x))
    assert table(model)["mix/kernel"] == "one filter per channel"


def test_equal_paths_are_told_apart():
    """Two variables may have one path; each has its own route."""
    inner_inputs = keras.Input((8,))
    inner = keras.Model(inner_inputs, dense("same")(inner_inputs))
    inputs = keras.Input((8,))
    model = keras.Model(inputs, dense("same", 4)(inner(inputs)))
    routes = routes_of_model(model, model.trainable_variables)
    assert [r.path for r in routes] == ["same/kernel", "same/bias"] * 2
    assert [r.rule for r in routes] == ["muon", "adamw", "adamw", "adamw"]


def test_order_and_choice_of_variables_are_the_callers():
    """Routes come in the order of the variables that were asked for."""
    model = keras.Sequential([keras.Input((6,)), dense("hidden"), dense("head", 4)])
    chosen = model.trainable_variables[::-1][1:]
    routes = routes_of_model(model, chosen)
    assert [r.path for r in routes] == [v.path for v in chosen]
    assert [r.rule for r in routes] == ["adamw", "adamw", "muon"]


def test_a_variable_of_no_layer_is_open():
    """It is not guessed from its shape."""
    model = keras.Sequential([keras.Input((6,)), dense("hidden")])
    stranger = keras.Variable(keras.ops.ones((8, 8)), name="kernel")
    (route,) = routes_of_model(model, [stranger])
    assert (route.rule, route.certain, route.reason) == (
        "adamw",
        False,
        "not in a layer",
    )


# Extents of a Dense layer, and whether its polar factor is worth computing.
THIN = {
    (3, 8): False,
    (8, 3): False,
    (1, 8): False,
    (4, 4): True,
    (4, 512): True,
    (4, 513): False,
    (512, 4): True,
    (513, 4): False,
}


@pytest.mark.parametrize("extents", THIN, ids=lambda e: f"{e[0]} x {e[1]}")
def test_too_thin_matrices(extents):
    """Less than 4 on the short side, or more than 128 to 1, is for AdamW."""
    fan_in, fan_out = extents
    hidden = dense("hidden", fan_out)
    model = keras.Sequential([keras.Input((fan_in,)), hidden, dense("head", 4)])
    route = routes_of_model(model, model.trainable_variables)[0]
    assert route.certain
    assert (route.rule == "muon") == THIN[extents]
    if route.rule == "adamw":
        text = f"too thin: {fan_in} x {fan_out}"
        assert route.reason == (text if fan_in > 1 else "not a matrix")


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.Conv2D(6, 3, groups=6, name="c"), "too thin: 9 x 1"),
        (layers.Conv2D(8, 1, groups=2, name="c"), "too thin: 3 x 4"),
        (layers.EinsumDense("bhwc,cde->bhwde", (4, 4, 1, 2), name="c"), "6 x 2"),
    ],
    ids=["depthwise by groups", "two groups", "one head of two"],
)
def test_thinness_is_per_matrix(layer, reason):
    """Groups make thin matrices out of a kernel that is not thin."""
    inputs = keras.Input((4, 4, 6))
    x = layers.Flatten()(layer(inputs))
    model = keras.Model(inputs, dense("head", 4)(x))
    assert table(model)["c/kernel"].endswith(reason)


def test_frozen_layers_have_no_routes():
    """What is not trained has no route, and the frozen head remains the head."""
    inputs, head = keras.Input((6,)), dense("head", 4)
    model = keras.Model(inputs, head(dense("hidden")(inputs)))
    head.trainable = False
    assert table(model) == {"hidden/kernel": (1, 6, 8), "hidden/bias": "bias"}


def test_a_layer_in_place_of_a_model():
    """Any layer can be walked; its last matrix counts as its head."""
    attention = layers.MultiHeadAttention(2, 6, name="attention")
    attention.build((None, 5, 8), (None, 5, 8))
    found = table(attention)
    assert found["attention/query/kernel"] == (1, 8, 12)
    assert found["attention/attention_output/kernel"] == "output head"


def test_without_a_model_only_recurrent_kernels_are_proven():
    """A recurrent kernel is never a head; every other matrix may be one."""
    lstm = layers.LSTM(5, name="lstm")
    lstm.build((None, 3, 6))
    kernel, recurrent, bias = routes_of_variables(lstm.trainable_variables)
    assert (kernel.rule, kernel.certain) == ("adamw", False)
    assert recurrent.view.matrix_shape == (1, 5, 20)
    assert (bias.rule, bias.certain) == ("adamw", True)
