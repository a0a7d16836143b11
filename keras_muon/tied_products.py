"""Output heads that are no layer: features times a weight that a layer has anyhow.

A tied head written by hand multiplies by the table of an embedding. The layer before it
is hidden, though it is the last one with a matrix.
"""

from typing import Any

import keras

# Operations of Keras that sum over an axis of both factors.
PRODUCTS = ("Dot", "Einsum", "Inner", "Matmul", "Tensordot")

Shapes = frozenset[tuple[int, ...]]


def shapes_of_matrices(layer: Any) -> Shapes:
    """Return the shapes of a layer's weights with two axes, and of their transposes.

    Args:
        layer: A built `keras.Layer`.

    Example:
        >>> layer = keras.layers.Embedding(9, 4)
        >>> layer.build()
        >>> sorted(shapes_of_matrices(layer))
        [(4, 9), (9, 4)]
    """
    shapes = {tuple(v.shape) for v in layer.weights if len(v.shape) == 2}
    return frozenset(shapes | {shape[::-1] for shape in shapes})


def multiplies_by_weight(operation: Any, arguments: Any, shapes: Shapes) -> bool:
    """Return whether an operation of a graph is a product with a weight.

    In a graph a weight is a variable, or has a value. Which weight it comes from, cast
    or transposed, only its shape tells.

    Args:
        operation: The `keras.Operation`.
        arguments: Its (args, kwargs).
        shapes: From `shapes_of_matrices`, of the model.
    """
    if isinstance(operation, keras.Layer) or type(operation).__name__ not in PRODUCTS:
        return False
    return any(
        not isinstance(value, keras.KerasTensor)
        and tuple(getattr(value, "shape", ())) in shapes
        for value in keras.tree.flatten(arguments)
    )
