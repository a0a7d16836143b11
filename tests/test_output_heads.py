"""Output heads are found where they are called, not where they are created."""

import keras
import numpy as np
import pytest
from models_with_calls import dense, named_heads

from keras_muon.output_heads import output_heads

layers = keras.layers


def softmax_tail():
    x = inputs = keras.Input((8,))
    for layer in (dense("one"), dense("head"), layers.Dropout(0.1), layers.Softmax()):
        x = layer(x)
    return keras.Model(inputs, x)


def two_outputs():
    inputs = keras.Input((8,))
    x = dense("trunk")(inputs)
    return keras.Model(inputs, [dense("left")(x), dense("right")(x)])


def dictionary_of_outputs():
    inputs = keras.Input((8,))
    x = dense("trunk")(inputs)
    outputs = {"a": layers.Softmax()(dense("left")(x)), "b": dense("right")(x)}
    return keras.Model(inputs, outputs)


def sum_of_two_heads():
    inputs = keras.Input((8,))
    x = dense("trunk")(inputs)
    return keras.Model(inputs, layers.Add()([dense("wide")(inputs), dense("deep")(x)]))


def arithmetic_on_the_output():
    inputs = keras.Input((8,))
    x = dense("head")(dense("trunk")(inputs))
    return keras.Model(inputs, keras.ops.tanh(x / 30.0) * 30.0)


def skip_from_the_input():
    inputs = keras.Input((4,))
    return keras.Model(inputs, inputs + dense("head")(dense("trunk")(inputs)))


def features_that_are_also_outputs():
    """What goes on into the model is hidden, whoever looks at it besides."""
    inputs = keras.Input((8,))
    first = dense("first")(inputs)
    second = dense("second")(first)
    return keras.Model(inputs, [first, dense("head")(second), second])


def logits_and_probabilities():
    inputs = keras.Input((8,))
    logits = dense("head")(inputs)
    return keras.Model(inputs, [logits, layers.Softmax()(logits)])


def convolution():
    inputs = keras.Input((6, 6, 3))
    x = inputs
    for name in ("one", "head"):
        x = layers.Conv2D(4, 1, name=name, kernel_initializer="zeros")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def nested_model():
    inner_inputs = keras.Input((4,))
    inner = keras.Model(inner_inputs, dense("head")(dense("inside")(inner_inputs)))
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.Softmax()(inner(dense("trunk")(inputs))))


def two_headed():
    inputs = keras.Input((8,))
    x = dense("trunk")(inputs)
    return keras.Model(inputs, [dense("first")(x), dense("second")(x)])


def first_output_of_a_nested_model():
    """The other one is a head of the inner model, not of this."""
    inputs = keras.Input((8,))
    return keras.Model(inputs, two_headed()(inputs)[0])


def second_output_of_a_nested_model():
    inputs = keras.Input((8,))
    return keras.Model(inputs, two_headed()(inputs)[1])


def both_outputs_of_a_nested_model():
    inputs = keras.Input((8,))
    return keras.Model(inputs, two_headed()(inputs))


def nested_sequential():
    tail = keras.Sequential([dense("inside"), dense("head"), layers.Softmax()])
    return keras.Sequential([keras.Input((8,)), dense("trunk"), tail])


def backbone_in_the_middle():
    """A nested model that is not last has no head."""
    backbone = keras.Sequential([keras.Input((8,)), dense("inside"), dense("features")])
    return keras.Sequential([backbone, dense("head")])


def sequential():
    stack = [dense("one"), dense("two"), dense("head"), layers.Softmax()]
    return keras.Sequential([keras.Input((8,)), *stack])


def siamese():
    """One encoder for two inputs; the head compares them."""
    left, right = keras.Input((8,)), keras.Input((8,))
    encoder = keras.Sequential([dense("encoder")])
    difference = layers.Subtract()([encoder(left), encoder(right)])
    return keras.Model([left, right], dense("head")(difference))


def siamese_without_head():
    """The encoder's last layer is what both branches end with."""
    left, right = keras.Input((8,)), keras.Input((8,))
    encoder = keras.Sequential([dense("inside"), dense("encoder")])
    output = layers.Dot(axes=1)([encoder(left), encoder(right)])
    return keras.Model([left, right], output)


def head_called_twice():
    """One head on two branches."""
    left, right = keras.Input((8,)), keras.Input((8,))
    head, trunk = dense("head"), dense("trunk")
    return keras.Model([left, right], [head(trunk(left)), head(dense("other")(right))])


def layer_that_is_head_and_trunk():
    """Called twice in a row; its last call decides."""
    inputs = keras.Input((4,))
    shared = dense("shared")
    return keras.Model(inputs, shared(shared(dense("trunk")(inputs))))


def wrapped_head():
    inputs = keras.Input((3, 8))
    x = layers.TimeDistributed(dense("trunk"))(inputs)
    return keras.Model(inputs, layers.TimeDistributed(dense("head"))(x))


def no_weights():
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.Softmax()(inputs))


MODELS = {
    softmax_tail: {"head"},
    two_outputs: {"left", "right"},
    dictionary_of_outputs: {"left", "right"},
    sum_of_two_heads: {"wide", "deep"},
    arithmetic_on_the_output: {"head"},
    skip_from_the_input: {"head"},
    features_that_are_also_outputs: {"head"},
    logits_and_probabilities: {"head"},
    convolution: {"head"},
    nested_model: {"head"},
    first_output_of_a_nested_model: {"first"},
    second_output_of_a_nested_model: {"second"},
    both_outputs_of_a_nested_model: {"first", "second"},
    nested_sequential: {"head"},
    backbone_in_the_middle: {"head"},
    sequential: {"head"},
    siamese: {"head"},
    siamese_without_head: {"encoder"},
    head_called_twice: {"head"},
    layer_that_is_head_and_trunk: {"shared"},
    wrapped_head: {"head"},
    no_weights: set(),
}


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_heads_of_a_graph(build):
    """Every path from an output back ends at its head, and nothing else is one."""
    assert named_heads(build()) == MODELS[build]


def test_looking_for_heads_leaves_the_model_alone():
    """The same outputs, variables and graph before and after."""
    model = nested_model()
    x = np.ones((2, 8), "float32")
    before = model.predict_on_batch(x)
    config, count = model.get_config(), len(model.weights)
    output_heads(model)
    np.testing.assert_array_equal(model.predict_on_batch(x), before)
    assert (model.get_config(), len(model.weights)) == (config, count)


def test_layers_called_for_their_heads_keep_no_nodes():
    """They and their symbolic tensors would live as long as the model."""

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = keras.layers.Dense(8), keras.layers.Dense(4)

        def call(self, x):
            return self.second(self.first(x))

    model = Own()
    model(np.ones((2, 8), "float32"))
    assert output_heads(model).ids == {id(model.second)}
    for layer in (model, model.first, model.second):
        assert layer._inbound_nodes == layer._outbound_nodes == []
