"""Orthogonalize any backend's tensor: what users call directly."""

import dataclasses
import operator
from typing import Any

import keras
from keras import ops

from keras_muon.keras_ops import wide_dtype
from keras_muon.kernels import from_matrices, to_matrices
from keras_muon.matrix_view import MatrixView
from keras_muon.plan import Plan
from keras_muon.planning import check_compute_dtype, planned, polar_factor
from keras_muon.schedules import Schedule, get_schedule

Tensor = Any
Shape = tuple[int | None, ...]


def orthogonalize(
    x: Tensor,
    schedule: str | dict | Schedule = "auto",
    steps: int | None = None,
    view: MatrixView | None = None,
    compute_dtype: str = "auto",
) -> Tensor:
    """Return the approximate polar factor of a matrix, or of each in a stack.

    The singular vectors stay, every singular value becomes about 1. The scale of `x`
    makes no difference: from 1e-30 to 3e38 the result is the same, and zero gives
    zero.

    On 512 rows or fewer, in float32, the first products of a named schedule are split
    to keep their digits where a matrix lacks directions: five steps of `"jordan"` then
    differ by less than 5e-6 between backends, but for TensorFlow's graphs without XLA,
    which add in another order (1e-5). `"auto"` has no such digits. Gradients flow
    through, for named schedules at every scale from 1e-30 to 1e30. At zero, where there
    is none, it is zero.

    Args:
        x: A tensor of the current backend, or an array. Any floating dtype.
        schedule: A name in `SCHEDULES`, or a `Schedule`. `"auto"` compresses the
            leading singular values of matrices with 384 rows or more and takes three
            steps, and five on others.
        steps: Number of steps. None takes the schedule's own number; with a number
            nothing is compressed.
        view: How the axes form matrices. By default the last two axes are in and out,
            the others batch, of extents that graphs of TensorFlow or JAX need not know.
        compute_dtype: Dtype of the matrix products: `"auto"`, `"float32"`,
            `"float64"`, `"bfloat16"` or `"float16"`. `"auto"` is float64 for float64
            input; bfloat16 for 256 rows or more (64 in a stack) on accelerators with
            native units, and on torch on CPUs with instructions for it; and else
            float32. The norm is always taken in float32 or better.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not of a floating dtype, or `view` no view.
        ValueError: If an argument is unknown, `x` is empty or has fewer than two axes,
            or `view` belongs to another shape.

    Example:
        >>> import numpy as np
        >>> q = orthogonalize(np.diag([3.0, 0.3]).astype("float32"))
        >>> bool(abs(keras.ops.convert_to_numpy(q) - np.eye(2)).max() < 0.05)
        True

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
    """
    check_compute_dtype(compute_dtype)
    x = _floats(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    shape = _shape_of(x)
    uncounted = view is None and None in shape
    seen = None if uncounted else _view_of(shape, view)
    if seen is None:
        matrices = ops.reshape(x, (-1, *_fans_of(shape)))
    else:
        matrices = to_matrices(x, seen)
    plan = planned(
        tuple(matrices.shape),
        get_schedule(schedule),
        steps,
        wide_dtype(matrices),
        compute_dtype,
        split=True,
        differentiable=True,
    )
    if seen is None:
        factors = _factors(matrices, dataclasses.replace(plan, loop="none"))
        return ops.cast(ops.reshape(factors, ops.shape(x)), dtype)
    return ops.cast(from_matrices(_factors(matrices, plan), seen), dtype)


def _factors(matrices: Tensor, plan: Plan) -> Tensor:
    """Return the polar factors; those of zero are zero, and so are their gradients.

    Without care a gradient at zero is not a number, and makes all that it is added to
    none either.
    """
    if not _may_be_differentiated():
        return polar_factor(matrices, plan)
    some = ops.any(ops.not_equal(matrices, 0), axis=(-2, -1), keepdims=True)
    # On both sides: forward derivatives pass what is masked behind alone.
    factors = polar_factor(ops.where(some, matrices, ops.ones_like(matrices)), plan)
    return ops.where(some, factors, ops.zeros_like(factors))


def _may_be_differentiated() -> bool:
    if keras.backend.backend() != "torch":
        return True
    import torch

    return torch.is_grad_enabled()


def _floats(x: Any) -> Tensor:
    """Return a tensor of a floating dtype, or an error that names `x`."""
    if isinstance(x, keras.KerasTensor):
        raise TypeError(
            "`x` must have values; received a symbolic tensor of Keras. Call "
            "orthogonalize inside of a layer's `call`."
        )
    try:
        tensor = ops.convert_to_tensor(x)
        dtype = keras.backend.standardize_dtype(tensor.dtype)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"`x` must be a tensor or an array; received {type(x).__name__}."
        ) from None
    if not dtype.startswith(("float", "bfloat")):
        raise TypeError(
            f"`x` must have a floating dtype; received {dtype}. Cast it first."
        )
    return tensor


def _shape_of(x: Tensor) -> Shape:
    """Return the extents, None for those that a graph does not know yet."""
    try:
        return tuple(map(_extent, x.shape))
    except ValueError:  # TensorFlow may not even know how many there are.
        raise ValueError(
            "`x` must have a known number of axes. Set it by x.set_shape, or trace the "
            "function with a full signature."
        ) from None


def _extent(extent: Any) -> int | None:
    try:
        return operator.index(extent)
    except TypeError:  # None, or a dimension of JAX that has a name
        return None


def _fans_of(shape: Shape) -> Shape:
    """Return fan_in and fan_out of matrices in a stack of an unknown number."""
    fans = shape[-2:]
    if len(shape) < 3 or None in fans:
        raise ValueError(
            "`x` must have matrices, on its last two axes, of known extents; received "
            f"shape {shape}. Set them by x.set_shape, or trace the function with a "
            "full signature."
        )
    if 0 in shape:
        raise ValueError(f"`x` must not be empty; received shape {shape}.")
    return fans


def _view_of(shape: Shape, view: MatrixView | None) -> MatrixView:
    if None in shape:
        raise ValueError(
            f"`x` must have known extents where a `view` is given; received shape "
            f"{shape}. Set them by x.set_shape, or leave `view` out."
        )
    if 0 in shape:
        raise ValueError(f"`x` must not be empty; received shape {shape}.")
    if view is None:
        return MatrixView.of_last_axes([e for e in shape if e is not None])
    if not isinstance(view, MatrixView):
        raise TypeError(f"`view` must be a MatrixView; received {view!r}.")
    if shape != view.shape:
        raise ValueError(
            f"`view` is made for shape {view.shape}; received `x` of shape {shape}."
        )
    return view
