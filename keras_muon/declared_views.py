"""Views that layers declare themselves, or that are registered for them.

A layer of one's own says what its variables are by a method:

    def muon_views(self):
        return {"w": {"in_axes": (1,), "out_axes": (0,)}, "table": "adamw"}

For a layer whose class cannot be edited, `register_views` says the same.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_muon.matrix_view import checked_axes, view_from
from keras_muon.messages import unknown_name
from keras_muon.roles import Role
from keras_muon.sublayers import owned_variables

Views = Mapping[str, Any]


def register_views(layer_type: type, views: Views | Callable[[Any], Views]) -> None:
    """Say what the variables of a layer are whose class you cannot edit.

    Applies to optimizers that are built afterwards, in this process, and to
    subclasses too. A second registration replaces the first. Before the layer's own
    method `muon_views`, and before what this package knows.

    Args:
        layer_type: A subclass of `keras.Layer`.
        views: A dictionary from the names of variables that the layer itself owns to
            `"adamw"`, a `MatrixView`, or a dictionary of `in_axes`, `out_axes` and
            `batch_axes`; or a function that takes the layer and returns such a
            dictionary. Variables that it leaves out are judged as before.

    Raises:
        TypeError: If `layer_type` is no layer class, or `views` neither.
        ValueError: If what a dictionary says of a variable is no view.

    Example:
        >>> class Mixer(keras.Layer):
        ...     def build(self, shape):
        ...         self.w = self.add_weight((8, shape[-1]), name="w")
        ...     def call(self, x):
        ...         return keras.ops.matmul(x, keras.ops.transpose(self.w))
        >>> register_views(Mixer, {"w": {"in_axes": (1,), "out_axes": (0,)}})
    """
    if not (isinstance(layer_type, type) and issubclass(layer_type, keras.Layer)):
        raise TypeError(
            f"`layer_type` must be a subclass of keras.Layer; received {layer_type!r}."
        )
    if not callable(views) and not isinstance(views, Mapping):
        raise TypeError(
            "`views` must be a dictionary from names of variables, or a function from "
            f"the layer to one; received {views!r}."
        )
    for name, wanted in views.items() if isinstance(views, Mapping) else ():
        if wanted != "adamw":
            checked_axes(wanted, f"`views[{name!r}]`")
    _registered[layer_type] = views


def declared_role(layer: Any, variable: Any) -> Role | None:
    """Return the role that a registration or the layer's own method declares.

    Args:
        layer: A `keras.Layer`.
        variable: One of the layer's own variables.

    Returns:
        The role, or None if nothing is declared for this variable.

    Raises:
        ValueError: If the declaration names a variable that the layer does not own,
            or its axes do not fit.
    """
    views, origin = _declaration(layer)
    if views is None:
        return None
    if not isinstance(views, Mapping):
        raise ValueError(
            f"{origin} must return a dictionary from names of variables to views; it "
            f"returned {views!r}."
        )
    names = [owned.name for owned in owned_variables(layer)]
    for name in views:
        if name not in names:
            raise unknown_name(f"variable in {origin}", name, names)
    if variable.name not in views:
        return None
    wanted = views[variable.name]
    if wanted == "adamw":
        return Role(None, f"by {origin}")
    shape = tuple(variable.shape)
    view = view_from(wanted, shape, f"{origin}[{variable.name!r}]")
    return Role(view, f"hidden matrix, by {origin}")


_registered: dict[type, Views | Callable[[Any], Views]] = {}


def _declaration(layer: Any) -> tuple[Any, str]:
    """What is declared for a layer, of its nearest class, and where."""
    for layer_type in type(layer).__mro__:
        if layer_type in _registered:
            views = _registered[layer_type]
            views = views if isinstance(views, Mapping) else views(layer)
            return views, f"register_views({layer_type.__name__})"
        if "muon_views" in vars(layer_type):
            return layer.muon_views(), f"{layer_type.__name__}.muon_views"
    return None, ""
