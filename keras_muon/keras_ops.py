"""MatrixOps on the tensors of whichever backend Keras runs on."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_muon.compression import polar_factors
from keras_muon.devices import multiplies_bfloat16, runs_on_accelerator
from keras_muon.leading import GROUP, MIXTURES
from keras_muon.matrix_view import MatrixView
from keras_muon.messages import unknown_name
from keras_muon.newton_schulz import Turned
from keras_muon.panels import lower_panels, torch_panels
from keras_muon.plan import Plan, Side, plan_for
from keras_muon.schedules import Schedule

Tensor = Any

COMPUTE_DTYPES = ("auto", "float32", "float64", "bfloat16", "float16")


def polar_factor(matrices: Tensor, plan: Plan) -> Tensor:
    """Return the polar factors of matrices (..., in, out), in float32 or better.

    Args:
        matrices: Tensor whose last two axes are in and out.
        plan: How they are computed, from `planned`.

    Returns:
        A tensor of the same shape, in float64 if the input is, else in float32.
    """
    wide = wide_dtype(matrices)
    result = polar_factors(ops.cast(matrices, wide), plan, carrier(plan))
    return ops.cast(result, wide)


def planned(
    shape: tuple[int, ...],
    schedule: Schedule,
    steps: int | None,
    wide: str,
    compute_dtype: str,
) -> Plan:
    """Return the plan for matrices, or stacks of them, on this backend's device.

    Args:
        shape: Extents of the tensor; the last two are in and out.
        schedule: The schedule.
        steps: Number of steps; None is the schedule's own.
        wide: Dtype of the update, `"float32"` or `"float64"`.
        compute_dtype: See `orthogonalize`.

    Returns:
        The plan.
    """
    *stack, fan_in, fan_out = shape
    if compute_dtype == "auto":
        fast = wide == "float32" and multiplies_bfloat16()
        compute_dtype = "bfloat16" if fast else wide
    return plan_for(
        fan_in,
        fan_out,
        schedule,
        compute_dtype,
        steps=steps,
        panelled=not stack and not runs_on_accelerator(),
    )


def wide_dtype(x: Tensor) -> str:
    """Return float64 for float64, and float32 for everything else."""
    given = keras.backend.standardize_dtype(x.dtype)
    return "float64" if given == "float64" else "float32"


def carrier(plan: Plan) -> "KerasOps":
    """Return the verbs of this backend, with the panels that a plan wants."""
    torch = keras.backend.backend() == "torch"
    return TorchOps(plan.panels) if torch else KerasOps(plan.panels)


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
    """The verbs of `MatrixOps` in `keras.ops`, on any backend.

    Args:
        panels: Number of column panels of a symmetric product.
    """

    def __init__(self, panels: int = 1):
        self.panels = panels

    def gram(self, x: Tensor, side: Side) -> Tensor:
        transposed = ops.swapaxes(x, -1, -2)
        left, right = (x, transposed) if side == "in" else (transposed, x)
        return self.symmetric_product(left, right)

    def fused(
        self, alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor
    ) -> Tensor:
        return self.combined(alpha, c, beta, ops.matmul(a, b))

    def symmetric(
        self, alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor
    ) -> Tensor:
        return self.combined(alpha, c, beta, self.symmetric_product(a, b))

    def symmetric_product(self, a: Tensor, b: Tensor) -> Tensor:
        """Return A @ B, computing only what lies on or below the diagonal."""
        return lower_panels(a, b, self.panels) if self.panels > 1 else ops.matmul(a, b)

    def squared(self, x: Tensor) -> Tensor:
        return self.symmetric_product(x, x)

    def product(self, a: Tensor, b: Tensor, turned: Turned) -> Tensor:
        if turned == "left":
            return ops.matmul(ops.swapaxes(a, -1, -2), b)
        return ops.matmul(a, ops.swapaxes(b, -1, -2))

    def mixed(self, x: Tensor, signs: Sequence[int], side: Side) -> Tensor:
        *stack, fan_in, fan_out = x.shape
        signs = ops.cast(ops.reshape(ops.array(signs), (-1, MIXTURES, GROUP)), x.dtype)
        if side == "in":
            groups = ops.reshape(x, (*stack, -1, GROUP, fan_out))
            return ops.reshape(ops.matmul(signs, groups), (*stack, -1, fan_out))
        groups = ops.moveaxis(ops.reshape(x, (*stack, fan_in, -1, GROUP)), -2, -3)
        sums = ops.matmul(groups, ops.swapaxes(signs, -1, -2))
        return ops.reshape(ops.moveaxis(sums, -3, -2), (*stack, fan_in, -1))

    def combined(self, alpha: float, x: Tensor, beta: float, y: Tensor) -> Tensor:
        return self.scaled(alpha, x) + self.scaled(beta, y)

    def scaled(self, alpha: float, x: Tensor) -> Tensor:
        return x if alpha == 1.0 else ops.multiply(x, alpha)

    def multiplied(self, x: Tensor, y: Tensor) -> Tensor:
        return ops.multiply(x, ops.cast(y, x.dtype))

    def divided(self, x: Tensor, y: Tensor, at_least: float) -> Tensor:
        return ops.divide(x, ops.cast(ops.maximum(y, at_least), x.dtype))

    def root(self, y: Tensor) -> Tensor:
        return ops.sqrt(y)

    def rest_of_one(self, y: Tensor, at_least: float) -> Tensor:
        return ops.sqrt(ops.maximum(1.0 - ops.square(y), at_least**2))

    def largest_entry(self, x: Tensor) -> Tensor:
        return ops.max(ops.abs(x), axis=(-2, -1), keepdims=True)

    def frobenius_norm(self, x: Tensor) -> Tensor:
        squares = ops.square(ops.cast(x, wide_dtype(x)))
        rows = ops.sum(squares, axis=-1, keepdims=True)
        return ops.sqrt(ops.sum(rows, axis=-2, keepdims=True))

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return ops.cast(x, dtype)

    def dtype_of(self, x: Tensor) -> str:
        return keras.backend.standardize_dtype(x.dtype)


class TorchOps(KerasOps):
    """The same verbs where torch has one kernel for alpha * C + beta * A @ B."""

    def gram(self, x: Tensor, side: Side) -> Tensor:
        left, right = (x, x.mT) if side == "in" else (x.mT, x)
        return torch_panels(left, right, self.panels)

    def squared(self, x: Tensor) -> Tensor:
        return torch_panels(x, x, self.panels)

    def product(self, a: Tensor, b: Tensor, turned: Turned) -> Tensor:
        return a.mT @ b if turned == "left" else a @ b.mT

    def combined(self, alpha: float, x: Tensor, beta: float, y: Tensor) -> Tensor:
        return self.scaled(alpha, x).add(y, alpha=beta)

    def scaled(self, alpha: float, x: Tensor) -> Tensor:
        # `keras.ops.multiply` would round alpha to float32 on torch.
        return x if alpha == 1.0 else x * alpha

    def divided(self, x: Tensor, y: Tensor, at_least: float) -> Tensor:
        return x / y.clamp(min=at_least).to(x.dtype)

    def fused(
        self, alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor
    ) -> Tensor:
        fused = c.addmm if c.ndim == 2 else c.baddbmm
        return fused(a, b, beta=alpha, alpha=beta)

    def symmetric(
        self, alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor
    ) -> Tensor:
        if self.panels == 1:
            return self.fused(alpha, c, beta, a, b)
        return torch_panels(a, b, self.panels, alpha, c, beta)
