"""Heads where branches meet, where a head is tied, and where models are nested."""

import keras
import numpy as np
import pytest
from models_with_calls import dense, named_heads

layers = keras.layers


def residual_stream():
    """Without a norm behind it, each branch leads to the output."""
    x = inputs = keras.Input((8,))
    for number in range(3):
        x = x + dense(f"down_{number}", 8)(dense(f"up_{number}", 12)(x))
    return keras.Model(inputs, layers.Dropout(0.1)(x))


def residual_stream_with_a_shortcut():
    """Of bare ConvNets: the skip path has weights, and a model is inside."""
    inputs = keras.Input((8,))
    inner = keras.Model(inputs, dense("narrow")(inputs) + dense("branch")(inputs))
    x = inner(inputs)
    return keras.Model(
        inputs, layers.Add()([dense("shortcut")(x), dense("last")(x), x])
    )


def head_that_another_one_reads():
    """Two outputs, each with a head of its own."""
    inputs = keras.Input((8,))
    logits = dense("left")(dense("trunk")(inputs))
    return keras.Model(inputs, [layers.Softmax()(logits), dense("right")(logits)])


def branches_side_by_side():
    """None of them is computed from another one."""
    inputs = keras.Input((8,))
    x = dense("trunk")(inputs)
    mean, spread = dense("mean")(x), dense("spread")(x)
    return keras.Model(inputs, mean + keras.ops.exp(spread))


def tied_by_hand():
    """The last layer with a matrix is hidden: the head is no layer."""
    table = layers.Embedding(9, 4, name="table")
    inputs = keras.Input((5,), dtype="int32")
    x = dense("trunk")(table(inputs))
    return keras.Model(
        inputs, keras.ops.matmul(x, keras.ops.transpose(table.embeddings))
    )


def tied_by_hand_before_softmax():
    """The same by the variable itself, with what follows a head."""
    table = layers.Embedding(9, 4, name="table")
    inputs = keras.Input((5,), dtype="int32")
    x = dense("trunk")(table(inputs))
    logits = keras.ops.einsum("btd,vd->btv", x, table.embeddings)
    return keras.Model(inputs, layers.Softmax()(logits / 30.0))


def constant_behind_the_head():
    """A fixed product, such as a filter bank, is no head."""
    inputs = keras.Input((8,))
    x = dense("head")(dense("trunk")(inputs))
    return keras.Model(inputs, keras.ops.matmul(x, np.ones((4, 8), "float32")))


def features_beside_a_head_inside():
    """Of a nested model one output is a head, and another one goes on."""
    inputs = keras.Input((8,))
    x = dense("trunk")(inputs)
    core = keras.Model(inputs, [dense("left")(x), x])
    logits, features = core(inputs)
    parts = [logits, dense("right")(features)]
    return keras.Model(inputs, layers.Concatenate()(parts))


def head_with_a_temperature_of_its_own():
    """Computed from each other, and no stream: nothing is added up."""
    inputs = keras.Input((8,))
    logits = dense("left")(dense("trunk")(inputs))
    return keras.Model(inputs, logits / keras.ops.softplus(dense("right")(logits)))


def stream_of_one_model_called_twice(turned):
    """Its last call is the last branch, in whichever order it is added."""
    given = keras.Input((8,))
    shared = keras.Model(given, dense("second", 8)(dense("first")(given)))
    x = inputs = keras.Input((8,))
    for branch in (shared, dense("between", 8), shared):
        x = branch(x) + x if turned else x + branch(x)
    return keras.Model(inputs, x)


def model_without_weights_behind_the_head():
    """The path goes on through it."""
    given = keras.Input((4,))
    tail = keras.Model(given, layers.Softmax()(given))
    inputs = keras.Input((8,))
    return keras.Model(inputs, tail(dense("head")(dense("trunk")(inputs))))


def tied_encoder():
    """Its kernel is the output projection, too."""
    inputs = keras.Input((8,))
    encoder = dense("encoder")
    x = keras.ops.tanh(encoder(inputs))
    return keras.Model(inputs, keras.ops.einsum("bd,vd->bv", x, encoder.kernel))


def tied_embedding():
    """The table is the last weight, by its transposed use."""
    table = layers.ReversibleEmbedding(9, 4, name="table")
    inputs = keras.Input((5,), dtype="int32")
    x = dense("trunk")(table(inputs))
    return keras.Model(inputs, table(x, reverse=True))


MODELS = {
    residual_stream: {"down_2"},
    residual_stream_with_a_shortcut: {"shortcut", "last"},
    head_that_another_one_reads: {"left", "right"},
    branches_side_by_side: {"mean", "spread"},
    tied_by_hand: set(),
    tied_by_hand_before_softmax: {"table"},
    constant_behind_the_head: {"head"},
    features_beside_a_head_inside: {"left", "right"},
    head_with_a_temperature_of_its_own: {"left", "right"},
    model_without_weights_behind_the_head: {"head"},
    tied_encoder: {"encoder"},
    tied_embedding: {"table"},
}


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_heads_of_a_graph(build):
    """What is added up, multiplied by a table or nested hides no head, and is none."""
    assert named_heads(build()) == MODELS[build]


@pytest.mark.parametrize("turned", [False, True])
def test_the_last_call_of_a_shared_model(turned):
    """What comes before is hidden."""
    assert named_heads(stream_of_one_model_called_twice(turned)) == {"second"}
