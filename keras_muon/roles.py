"""Roles: what a variable is to its layer, and what its name and shape alone prove."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_muon.matrix_view import MatrixView


class Role(NamedTuple):
    """What a variable is to its layer.

    Args:
        view: Its matrix view, or None if it is not a hidden matrix.
        reason: Why, in a few words.
        certain: False if the layer's type is unknown.
    """

    view: MatrixView | None
    reason: str
    certain: bool = True


def role_by_name(variable: Any) -> Role | None:
    """Return the role that name and shape alone prove, or None.

    Args:
        variable: A `keras.Variable`.

    Returns:
        The role of vectors, biases, gains, embedding tables and low-rank factors,
        which no layer of Keras uses as hidden matrices; None for all else.
    """
    if getattr(variable, "overwrite_with_gradient", False):
        return Role(None, "written by its layer")
    if variable.name in NAMED_ROLES:
        return NAMED_ROLES[variable.name]
    if variable.name.startswith("lora_"):
        return Role(None, "low-rank factor")
    if sum(extent > 1 for extent in variable.shape) < 2:
        return Role(None, "not a matrix")
    return None


NAMED_ROLES: Mapping[str, Role] = {
    "bias": Role(None, "bias"),
    "gamma": Role(None, "gain"),
    "scale": Role(None, "gain"),
    "beta": Role(None, "shift"),
    "alpha": Role(None, "slope"),
    "embeddings": Role(None, "embedding"),
    "reverse_embeddings": Role(None, "output head"),
    "depthwise_kernel": Role(None, "one filter per channel"),
}
