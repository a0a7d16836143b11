"""What each kind of Keras layer does with its variables: the matrix views.

Only the layer knows which axes of its kernel are in and which are out. This file
says it for the layers of Keras, by the layer's type and the variable's name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from keras_muon.matrix_view import MatrixView

layers = keras.layers


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


def role_of(layer: Any, variable: Any, parent: Any = None) -> Role:
    """Return the role of a variable that `layer` owns.

    Args:
        layer: A `keras.Layer`.
        variable: One of the layer's own variables.
        parent: The layer that holds `layer`, if any.

    Returns:
        Its role; not certain if neither the layer's type nor the variable's name and
        shape decide.
    """
    provable = role_by_name(variable)
    if provable is not None:
        return provable
    # The cell of a ConvLSTM has no public type; its parent speaks for it.
    kind = parent if isinstance(parent, RECURRENT_CONVOLUTIONS) else layer
    for types, rules in RULES:
        if isinstance(kind, types) and variable.name in rules:
            return rules[variable.name](layer, tuple(variable.shape))
    return Role(None, f"unknown layer {type(layer).__name__}", certain=False)


def role_by_name(variable: Any) -> Role | None:
    """Return the role that name and shape alone prove, or None.

    Args:
        variable: A `keras.Variable`.

    Returns:
        The role of vectors, biases, gains, embedding tables and low-rank factors,
        which no layer of Keras uses as hidden matrices; None for all else.
    """
    if variable.name in NAMED_ROLES:
        return NAMED_ROLES[variable.name]
    if variable.name.startswith("lora_"):
        return Role(None, "low-rank factor")
    if sum(extent > 1 for extent in variable.shape) < 2:
        return Role(None, "not a matrix")
    return None


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


NAMED_ROLES = {
    "bias": Role(None, "bias"),
    "recurrent_bias": Role(None, "bias"),
    "gamma": Role(None, "gain"),
    "scale": Role(None, "gain"),
    "beta": Role(None, "shift"),
    "alpha": Role(None, "slope"),
    "embeddings": Role(None, "embedding"),
    "reverse_embeddings": Role(None, "output head"),
    "depthwise_kernel": Role(None, "one filter per channel"),
}

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
