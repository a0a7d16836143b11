"""Output heads that are no layer: features times a weight that a layer has anyhow.

A tied head written by hand multiplies by the table of an embedding. The layer before it
is hidden, though it is the last one with a matrix.
"""

from typing import Any, NamedTuple

import keras

from keras_muon.sublayers import owned_variables, walked

# Operations of Keras that sum over an axis of both factors.
PRODUCTS = ("Dot", "Einsum", "Inner", "Matmul", "Tensordot")


class Tables(NamedTuple):
    """Weights of a model that may also be its output head.

    Args:
        owners: The layer of each weight with two axes, by `id(variable)`.
        shapes: Of the tables of embeddings, and of their transposes.
    """

    owners: dict[int, Any]
    shapes: frozenset[tuple[int, ...]]


def tables_of(model: Any) -> Tables:
    """Return the weights that may be a tied head.

    Args:
        model: A built `keras.Layer`.

    Example:
        >>> layer = keras.layers.Embedding(9, 4)
        >>> layer.build()
        >>> sorted(tables_of(layer).shapes)
        [(4, 9), (9, 4)]
    """
    owners: dict[int, Any] = {}
    shapes: set[tuple[int, ...]] = set()
    for layer, _ in walked(model):
        for variable in owned_variables(layer):
            if len(variable.shape) == 2:
                owners[id(variable)] = layer
                if isinstance(layer, keras.layers.Embedding):
                    shape = tuple(variable.shape)
                    shapes |= {shape, shape[::-1]}
    return Tables(owners, frozenset(shapes))


def tied_heads(
    operation: Any, arguments: Any, tables: Tables
) -> list[tuple[Any, bool]]:
    """Return the head that a product with a weight is, in a graph.

    A variable is known. Of a table that was cast or transposed before, nothing is left
    but its value and shape.

    Args:
        operation: The `keras.Operation`.
        arguments: Its (args, kwargs).
        tables: From `tables_of`, of the model.

    Returns:
        The layer of the weight, or None for one that only its shape tells, and that it
        is proven. An empty list if the operation is none.
    """
    if isinstance(operation, keras.Layer) or type(operation).__name__ not in PRODUCTS:
        return []
    for value in keras.tree.flatten(arguments):
        if id(value) in tables.owners:
            return [(tables.owners[id(value)], True)]
        symbolic = isinstance(value, keras.KerasTensor)
        if not symbolic and tuple(getattr(value, "shape", ())) in tables.shapes:
            return [(None, True)]
    return []
