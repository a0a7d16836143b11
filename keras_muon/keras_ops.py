"""MatrixOps on the tensors of whichever backend Keras runs on."""

from typing import Any

import keras
from keras import ops

from keras_muon.admissible import Triple
from keras_muon.devices import runs_on_accelerator
from keras_muon.matrix_view import MatrixView
from keras_muon.messages import unknown_name
from keras_muon.newton_schulz import newton_schulz
from keras_muon.panels import lower_panels, torch_panels
from keras_muon.plan import Plan, Side, plan_for

Tensor = Any

COMPUTE_DTYPES = ("auto", "float32", "float64", "bfloat16", "float16")


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
    plan = planned(tuple(matrices.shape), tuple(triples), wide, compute_dtype)
    result = newton_schulz(ops.cast(matrices, wide), plan, carrier(plan))
    return ops.cast(result, wide)


def planned(
    shape: tuple[int, ...], triples: tuple[Triple, ...], wide: str, compute_dtype: str
) -> Plan:
    """Return the plan for matrices, or stacks of them, on this backend's device.

    Args:
        shape: Extents of the tensor; the last two are in and out.
        triples: One (a, b, c) per step.
        wide: Dtype of the update, `"float32"` or `"float64"`.
        compute_dtype: See `orthogonalize`.

    Returns:
        The plan.
    """
    *stack, fan_in, fan_out = shape
    return plan_for(
        fan_in,
        fan_out,
        triples,
        wide if compute_dtype == "auto" else compute_dtype,
        panelled=not stack and not runs_on_accelerator(),
    )


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

    def combined(self, alpha: float, x: Tensor, beta: float, y: Tensor) -> Tensor:
        return self.scaled(alpha, x) + self.scaled(beta, y)

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
        left, right = (x, x.mT) if side == "in" else (x.mT, x)
        return torch_panels(left, right, self.panels)

    def scaled(self, alpha: float, x: Tensor) -> Tensor:
        # `keras.ops.multiply` would round alpha to float32 on torch.
        return x if alpha == 1.0 else x * alpha

    def divided(self, x: Tensor, y: Tensor, at_least: float) -> Tensor:
        return x / y.clamp(min=at_least)

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
