"""What each kind of Keras layer does with its variables: the matrix views.

Only the layer knows which axes of its kernel are in and which are out. This file
says it for the layers of Keras, by the layer's type and the variable's name.
"""

from collections.abc import Callable
from typing import Any

import keras

from keras_muon.declared_views import declared_role
from keras_muon.keras_hub_views import keras_hub_role
from keras_muon.matrix_view import MatrixView
from keras_muon.roles import Role, role_by_name

layers = keras.layers


def role_of(layer: Any, variable: Any, parent: Any = None) -> Role:
    """Return the role of a variable that `layer` owns.

    Args:
        layer: A `keras.Layer`.
        variable: One of the layer's own variables.
        parent: The layer that holds `layer`, if any.

    Returns:
        Its role; not certain if neither a declaration, nor the layer's type, nor the
        variable's name and shape decide.

    Raises:
        ValueError: If the layer's declaration does not fit its variables.
    """
    known = (
        declared_role(layer, variable)
        or role_by_name(variable)
        or keras_hub_role(layer, variable)
    )
    if known is not None:
        return known
    # The cell of a ConvLSTM has no public type; its parent speaks for it.
    kind = parent if isinstance(parent, RECURRENT_CONVOLUTIONS) else layer
    for types, rules in RULES:
        if isinstance(kind, types) and variable.name in rules:
            return rules[variable.name](layer, tuple(variable.shape))
    return Role(None, f"unknown layer {type(layer).__name__}", certain=False)


def einsum_view(equation: str, shape: tuple[int, ...]) -> MatrixView | None:
    """Return the view of the second operand of an einsum equation.

    A kernel axis that the input has and the output has not is summed over: in. One
    that only the output has is produced: out. One that all three have is batch.

    Args:
        equation: Such as `"abc,cde->abde"`, with or without an ellipsis.
        shape: The kernel's shape.

    Returns:
        The view, or None if an axis is none of these.

    Example:
        >>> einsum_view("btd,ndh->btnh", (4, 32, 8)).out_axes
        (0, 2)
    """
    operands, output = equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    if len(kernel) != len(shape):
        return None
    axes: dict[tuple[bool, bool], list[int]] = {}
    for axis, letter in enumerate(kernel):
        axes.setdefault((letter in inputs, letter in output), []).append(axis)
    if (False, False) in axes or not axes.keys() >= {(True, False), (False, True)}:
        return None
    return MatrixView(
        shape,
        in_axes=tuple(axes[True, False]),
        out_axes=tuple(axes[False, True]),
        batch_axes=tuple(axes.get((True, True), ())),
    )


def _dense(layer: Any, shape: tuple[int, ...]) -> Role:
    return Role(MatrixView.of_last_axes(shape), "hidden matrix")


def _einsum(layer: Any, shape: tuple[int, ...]) -> Role:
    view = einsum_view(layer.equation, shape)
    if view is None:
        return Role(None, f"no matrix in {layer.equation}", certain=False)
    return Role(view, f"hidden matrix, {layer.equation}")


def _convolution(layer: Any, shape: tuple[int, ...]) -> Role:
    """(spatial..., in, out); with g groups, out is (g, out / g) and g is batch."""
    *window, _ = range(len(shape))
    groups = getattr(layer, "groups", 1)
    if groups == 1:
        view = MatrixView(shape, tuple(window), (len(shape) - 1,))
        return Role(view, "convolution")
    factors = (*shape[:-1], groups, shape[-1] // groups)
    rank = len(factors)
    view = MatrixView(shape, tuple(window), (rank - 1,), (rank - 2,), factors)
    return Role(view, f"convolution, {groups} groups")


def _transposed_convolution(layer: Any, shape: tuple[int, ...]) -> Role:
    """(spatial..., out, in): Keras keeps the kernel of the forward convolution."""
    *window, last = range(len(shape))
    return Role(MatrixView(shape, (last,), tuple(window)), "transposed convolution")


def _recurrent_convolution(layer: Any, shape: tuple[int, ...]) -> Role:
    return _convolution(None, shape)


def _role(reason: str) -> Callable[[Any, tuple[int, ...]], Role]:
    return lambda layer, shape: Role(None, reason)


CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
CELLS = (layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell)
RECURRENT_CONVOLUTIONS = (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)

# The first row that fits wins, so that special kinds stand before general ones.
RULES: tuple[tuple[tuple[type, ...], dict[str, Callable[..., Role]]], ...] = (
    (SEPARABLE, {"pointwise_kernel": _convolution}),
    (DEPTHWISE, {"kernel": _role("one filter per channel")}),
    (TRANSPOSED, {"kernel": _transposed_convolution}),
    (CONVOLUTIONS, {"kernel": _convolution}),
    ((layers.EinsumDense,), {"kernel": _einsum}),
    ((layers.Dense,), {"kernel": _dense}),
    (CELLS, {"kernel": _dense, "recurrent_kernel": _dense}),
    (
        RECURRENT_CONVOLUTIONS,
        {
            "kernel": _recurrent_convolution,
            "recurrent_kernel": _recurrent_convolution,
        },
    ),
)
