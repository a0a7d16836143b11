"""The layers inside a layer and the variables that are its own."""

from collections.abc import Iterator
from typing import Any

import keras

CONTAINERS = (list, tuple, set, frozenset, dict)


def sublayers(layer: Any) -> list[Any]:
    """Return the layers that a layer holds directly, in the order of creation.

    They are found among its attributes, and in lists, tuples, sets and dictionaries
    among them, at any depth.

    Args:
        layer: A `keras.Layer`.

    Returns:
        The layers, without `layer` itself and without repetition.

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(2, name="a")])
        >>> [child.name for child in sublayers(model)]
        ['a']
    """
    found: dict[int, Any] = {}
    pending = list(vars(layer).values())[::-1]
    seen: set[int] = set()
    while pending:
        value = pending.pop()
        if isinstance(value, keras.Layer):
            if value is not layer:
                found.setdefault(id(value), value)
        elif isinstance(value, CONTAINERS) and id(value) not in seen:
            seen.add(id(value))
            values = value.values() if isinstance(value, dict) else value
            pending.extend(list(values)[::-1])
    return list(found.values())


def walked(layer: Any) -> Iterator[tuple[Any, Any]]:
    """Yield a layer and all inside it, each once, with the layer that holds it.

    Args:
        layer: A `keras.Layer`, held by None.
    """
    seen: set[int] = set()
    pending = [(layer, None)]
    while pending:
        current, parent = pending.pop()
        if id(current) not in seen:
            seen.add(id(current))
            yield current, parent
            pending.extend((child, current) for child in sublayers(current)[::-1])


def owned_variables(layer: Any) -> list[Any]:
    """Return the variables that belong to a layer and to no layer inside it.

    Args:
        layer: A `keras.Layer`.

    Returns:
        Its own variables, trainable or not, in the order of creation.

    Example:
        >>> layer = keras.layers.Dense(2)
        >>> layer.build((None, 3))
        >>> [variable.name for variable in owned_variables(layer)]
        ['kernel', 'bias']
    """
    inner = {id(v) for child in sublayers(layer) for v in child.weights}
    return [v for v in layer.weights if id(v) not in inner]


def weighted_leaves(layer: Any) -> list[Any]:
    """Return the innermost layers below (or equal to) `layer` that have weights.

    A layer that owns variables itself is a leaf even if it holds others.

    Args:
        layer: A `keras.Layer`.

    Returns:
        The leaves without repetition.
    """
    leaves: dict[int, Any] = {}
    pending, seen = [layer], set()
    while pending:
        current = pending.pop()
        if id(current) in seen or not current.weights:
            continue
        seen.add(id(current))
        if owned_variables(current):
            leaves[id(current)] = current
        pending.extend(sublayers(current)[::-1])
    return list(leaves.values())
