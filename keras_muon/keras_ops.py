"""MatrixOps on the tensors of whichever backend Keras runs on."""

import functools
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_muon.leading import GROUP, Signs
from keras_muon.matrix_ops import DerivedVerbs, Turned
from keras_muon.plan import Side

Tensor = Any


# XLA divides by multiplying with the reciprocal, and flushes that of more than this to
# zero. Entries in such units are below 8.
LARGEST_UNIT = {"float32": 2.0**125, "float64": 2.0**1021}


def wide_dtype(x: Tensor) -> str:
    """Return float64 for float64, and float32 for everything else."""
    given = keras.backend.standardize_dtype(x.dtype)
    return "float64" if given == "float64" else "float32"


class KerasOps(DerivedVerbs):
    """The verbs of `MatrixOps` in `keras.ops`, on any backend.

    Args:
        whole_factors: Whether factors of a step hold their identity in float32 or
            better, which saves sums over matrices: in a compiled graph the diagonal
            costs nothing.
    """

    def __init__(self, *, whole_factors: bool = False):
        self.whole_factors = whole_factors

    def gram(self, x: Tensor, side: Side) -> Tensor:
        transposed = ops.swapaxes(x, -1, -2)
        left, right = (x, transposed) if side == "in" else (transposed, x)
        return ops.matmul(left, right)

    def fused(
        self, alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor
    ) -> Tensor:
        if not alpha:
            return self.scaled(beta, ops.matmul(a, b))
        return self.combined(alpha, c, beta, ops.matmul(a, b))

    def step_factor(
        self, a: float, b: float, c: float, gram: Tensor
    ) -> tuple[float, Tensor]:
        return self.with_identity(*super().step_factor(a, b, c, gram))

    def with_identity(self, a: float, x: Tensor) -> tuple[float, Tensor]:
        if not self._holds_identity(x):
            return a, x
        unit = ops.eye(x.shape[-1], dtype=x.dtype)
        return 0.0, x + self.scaled(a, unit)

    def applied(self, identity: float, total: Tensor, x: Tensor, side: Side) -> Tensor:
        wide = wide_dtype(total)
        left, right = (total, x) if side == "in" else (x, total)
        if wide == self.dtype_of(total):
            return self.fused(identity, x, 1.0, left, right)
        # Where two rounded terms would be added, see `MatrixOps`. In float32 the
        # rounding of the diagonal is the larger one: 4.8e-6 beside 1.9e-6 on a rank
        # of 32 in 64.
        unit = self.scaled(identity, ops.eye(total.shape[-1], dtype=wide))
        factor = ops.cast(ops.cast(total, wide) + unit, total.dtype)
        return ops.matmul(factor, x) if side == "in" else ops.matmul(x, factor)

    def symmetric(
        self, alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor
    ) -> Tensor:
        return self.fused(alpha, c, beta, a, b)

    def squared(self, x: Tensor) -> Tensor:
        return ops.matmul(x, x)

    def product(self, a: Tensor, b: Tensor, turned: Turned) -> Tensor:
        if turned == "left":
            return ops.matmul(ops.swapaxes(a, -1, -2), b)
        return ops.matmul(a, ops.swapaxes(b, -1, -2))

    def mixed(self, x: Tensor, signs: Signs, side: Side) -> Tensor:
        fan_in, fan_out = x.shape[-2:]
        stack = ops.shape(x)[:-2]  # which a graph need not know
        weights = ops.cast(ops.convert_to_tensor(_array(signs)), x.dtype)
        if side == "in":
            groups = ops.reshape(x, (*stack, fan_in // GROUP, GROUP, fan_out))
            # `keras.ops.matmul` of float64 tensors is float32 on torch.
            mixtures = fan_in // GROUP * weights.shape[-2]
            return ops.reshape(weights @ groups, (*stack, mixtures, fan_out))
        mixtures = fan_out // GROUP * weights.shape[-2]
        groups = ops.reshape(x, (*stack, fan_in, fan_out // GROUP, GROUP))
        sums = ops.moveaxis(groups, -2, -3) @ ops.swapaxes(weights, -1, -2)
        return ops.reshape(ops.moveaxis(sums, -3, -2), (*stack, fan_in, mixtures))

    def combined(self, alpha: float, x: Tensor, beta: float, y: Tensor) -> Tensor:
        return self.scaled(alpha, x) + self.scaled(beta, y)

    def scaled(self, alpha: float, x: Tensor) -> Tensor:
        return x if alpha == 1.0 else ops.multiply(x, alpha)

    def on_grid(self, x: Tensor, bits: int) -> Tensor:
        return ops.multiply(ops.round(ops.multiply(x, 2.0**bits)), 2.0**-bits)

    def multiplied(self, x: Tensor, y: Tensor) -> Tensor:
        return ops.multiply(x, ops.cast(y, x.dtype))

    def divided(self, x: Tensor, y: Tensor, dtype: str) -> Tensor:
        # XLA makes one division by a product of two, which may overflow.
        return ops.cast(self.multiplied(x, self.reciprocal(y)), dtype)

    def reciprocal(self, y: Tensor) -> Tensor:
        return 1.0 / y

    def at_least(self, y: Tensor, least: float) -> Tensor:
        return ops.maximum(y, least)

    def root(self, y: Tensor) -> Tensor:
        return ops.sqrt(y)

    def rest_of_one(self, y: Tensor, at_least: float) -> Tensor:
        return ops.sqrt(ops.maximum(1.0 - ops.square(y), at_least**2))

    def largest_entry(self, x: Tensor) -> Tensor:
        largest = ops.max(ops.abs(x), axis=(-2, -1), keepdims=True)
        largest = ops.minimum(largest, LARGEST_UNIT[self.dtype_of(x)])
        return ops.stop_gradient(largest)

    def frobenius_norm(self, x: Tensor) -> Tensor:
        squares = ops.square(ops.cast(x, wide_dtype(x)))
        rows = ops.sum(squares, axis=-1, keepdims=True)
        return ops.sqrt(ops.sum(rows, axis=-2, keepdims=True))

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return ops.cast(x, dtype)

    def dtype_of(self, x: Tensor) -> str:
        return keras.backend.standardize_dtype(x.dtype)

    def _holds_identity(self, x: Tensor) -> bool:
        return self.whole_factors and wide_dtype(x) == self.dtype_of(x)


@functools.cache
def _array(signs: Signs) -> np.ndarray:
    # By NumPy, and once: torch takes 20 ms for a tuple.
    return np.array(signs, "float32")
