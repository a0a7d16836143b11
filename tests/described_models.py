"""Models with matrices of several kinds, and the tables that describe them."""

import keras

from keras_muon import Muon

layers = keras.layers


def dense(name, units=8, **arguments):
    """A Dense layer without random values: they cost JAX a compilation per shape."""
    return layers.Dense(units, name=name, kernel_initializer="zeros", **arguments)


def small_model():
    """A convolution in two groups, a wide matrix, a thin one and a head."""
    inputs = keras.Input((4, 6))
    mix = layers.Conv1D(8, 3, groups=2, name="mix", kernel_initializer="zeros")
    x = layers.Flatten()(mix(inputs))
    x = dense("thin", 3)(dense("wide", 100)(x))
    return keras.Model(inputs, dense("head", 4)(x))


def described(model, **arguments):
    """The text of a description, and the optimizer."""
    optimizer = Muon.for_model(model, **arguments)
    optimizer.build(model.trainable_variables)
    texts = []
    optimizer.describe(print_fn=texts.append)
    (text,) = texts
    return text, optimizer


def routes_in(text):
    """The first of the two tables."""
    return text.partition("\nNewton-Schulz")[0]


def rows(text):
    """Cells of a table's body; a cell folded over several lines is one again."""
    found = []
    for line in text.splitlines():
        if line.startswith("│"):
            cells = [cell.strip() for cell in line.strip("│").split("│")]
            if found and not cells[4]:
                cells = [a + b for a, b in zip(found.pop(), cells, strict=True)]
            found.append(cells)
    return found
