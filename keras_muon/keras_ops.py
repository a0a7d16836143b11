"""MatrixOps on the tensors of whichever backend Keras runs on."""

from typing import Any

import keras
from keras import ops

from keras_muon.matrix_view import MatrixView
from keras_muon.messages import unknown_name
from keras_muon.newton_schulz import Side, newton_schulz
from keras_muon.schedules import Schedule, get_schedule

Tensor = Any

COMPUTE_DTYPES = ("auto", "float32", "float64", "bfloat16", "float16")


def orthogonalize(
    x: Tensor,
    schedule: str | dict | Schedule = "you",
    steps: int | None = None,
    view: MatrixView | None = None,
    compute_dtype: str = "auto",
) -> Tensor:
    """Return the approximate polar factor of a matrix, or of each in a stack.

    The singular vectors stay, every singular value becomes about 1. The scale of `x`
    makes no difference: from 1e-30 to 1e30 the result is the same, and zero gives
    zero.

    Args:
        x: A tensor of the current backend, or an array. Any floating dtype.
        schedule: A name in `SCHEDULES`, or a `Schedule`.
        steps: Number of steps. None takes the schedule's own number.
        view: How the axes form matrices. By default the last two axes are in and out,
            the others batch.
        compute_dtype: Dtype of the matrix products: `"auto"`, `"float32"`,
            `"float64"`, `"bfloat16"` or `"float16"`. `"auto"` is float64 for float64
            input and float32 for everything else. The norm is always taken in float32
            or better.

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
    view = _view_of(x, view)
    dtype = keras.backend.standardize_dtype(x.dtype)
    triples = get_schedule(schedule).take(steps)
    matrices = polar_factor(to_matrices(x, view), triples, compute_dtype)
    return ops.cast(from_matrices(matrices, view), dtype)


def _floats(x: Any) -> Tensor:
    """Return a tensor of a floating dtype, or an error that names `x`."""
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


def _view_of(x: Tensor, view: MatrixView | None) -> MatrixView:
    shape = tuple(x.shape)
    if 0 in shape:
        raise ValueError(f"`x` must not be empty; received shape {shape}.")
    if view is None:
        return MatrixView.of_last_axes(shape)
    if not isinstance(view, MatrixView):
        raise TypeError(f"`view` must be a MatrixView; received {view!r}.")
    if shape != view.shape:
        raise ValueError(
            f"`view` is made for shape {view.shape}; received `x` of shape {shape}."
        )
    return view


def polar_factor(matrices: Tensor, triples: Any, compute_dtype: str) -> Tensor:
    """Return NS of matrices (..., in, out), in float32 or better.

    Args:
        matrices: Tensor whose last two axes are in and out.
        triples: One (a, b, c) per step.
        compute_dtype: See `orthogonalize`.

    Returns:
        A tensor of the same shape, in float64 if the input is, else in float32.
    """
    given = keras.backend.standardize_dtype(matrices.dtype)
    wide = "float64" if given == "float64" else "float32"
    *_, fan_in, fan_out = matrices.shape
    result = newton_schulz(
        ops.cast(matrices, wide),
        fan_in=fan_in,
        fan_out=fan_out,
        triples=triples,
        compute_dtype=wide if compute_dtype == "auto" else compute_dtype,
        ops=TorchOps() if keras.backend.backend() == "torch" else KerasOps(),
    )
    return ops.cast(result, wide)


def check_compute_dtype(compute_dtype: object) -> str:
    """Return `compute_dtype` if it is one that NS can use, or refuse it."""
    if compute_dtype not in COMPUTE_DTYPES:
        raise unknown_name("compute_dtype", compute_dtype, COMPUTE_DTYPES)
    if compute_dtype == "float64" and keras.backend.backend() == "jax":
        import jax

        if not jax.config.jax_enable_x64:
            raise ValueError(
                "`compute_dtype` 'float64' would be float32 on JAX, which computes in "
                "float64 only after jax.config.update('jax_enable_x64', True)."
            )
    return str(compute_dtype)


def to_matrices(x: Tensor, view: MatrixView) -> Tensor:
    """Return a kernel as (batch, in, out), or (in, out) if the batch is 1."""
    x = _reshaped(x, view.factors)
    if view.permutation != tuple(range(len(view.factors))):
        x = ops.transpose(x, view.permutation)
    shape = view.matrix_shape
    return _reshaped(x, shape[1:] if view.batch == 1 else shape)


def from_matrices(matrices: Tensor, view: MatrixView) -> Tensor:
    """Return the kernel that `to_matrices` took apart."""
    x = _reshaped(matrices, view.permuted_factors)
    if view.permutation != tuple(range(len(view.factors))):
        x = ops.transpose(x, view.inverse_permutation)
    return _reshaped(x, view.shape)


def _reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if tuple(x.shape) == shape else ops.reshape(x, shape)


class KerasOps:
    """The verbs of `MatrixOps` in `keras.ops`, on any backend."""

    def gram(self, x: Tensor, side: Side) -> Tensor:
        transposed = ops.swapaxes(x, -1, -2)
        left, right = (x, transposed) if side == "in" else (transposed, x)
        return ops.matmul(left, right)

    def fused(
        self, alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor
    ) -> Tensor:
        product = ops.matmul(a, b)
        return self.scaled(alpha, c) + self.scaled(beta, product)

    def scaled(self, alpha: float, x: Tensor) -> Tensor:
        return x if alpha == 1.0 else ops.multiply(x, alpha)

    def divided(self, x: Tensor, y: Tensor, at_least: float) -> Tensor:
        return ops.divide(x, ops.maximum(y, at_least))

    def largest_entry(self, x: Tensor) -> Tensor:
        return ops.max(ops.abs(x), axis=(-2, -1), keepdims=True)

    def frobenius_norm(self, x: Tensor) -> Tensor:
        rows = ops.sum(ops.square(x), axis=-1, keepdims=True)
        return ops.sqrt(ops.sum(rows, axis=-2, keepdims=True))

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return ops.cast(x, dtype)


class TorchOps(KerasOps):
    """The same verbs where torch has one kernel for alpha * C + beta * A @ B."""

    def gram(self, x: Tensor, side: Side) -> Tensor:
        return x @ x.mT if side == "in" else x.mT @ x

    def divided(self, x: Tensor, y: Tensor, at_least: float) -> Tensor:
        return x / y.clamp(min=at_least)

    def fused(
        self, alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor
    ) -> Tensor:
        fused = c.addmm if c.ndim == 2 else c.baddbmm
        return fused(a, b, beta=alpha, alpha=beta)
