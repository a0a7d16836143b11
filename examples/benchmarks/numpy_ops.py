"""The iteration on NumPy arrays: the smallest carrier that `keras_muon` runs on."""

import numpy as np

from keras_muon.compression import polar_factors
from keras_muon.leading import GROUP, Signs
from keras_muon.matrix_ops import DerivedVerbs, Turned
from keras_muon.plan import Side
from keras_muon.plan_choice import plan_for
from keras_muon.schedules import Schedule


def orthogonalize(
    x: np.ndarray, schedule: Schedule, *, planned: bool = True
) -> np.ndarray:
    """Return NS of the matrices in the last two axes, in the dtype of `x`.

    Args:
        x: Matrices.
        schedule: The schedule.
        planned: Whether steps share Gram matrices and leading singular values are
            compressed, as in the optimizer. If not, each step is the paper's.
    """
    *_, fan_in, fan_out = x.shape
    steps = None if planned else schedule.steps
    plan = plan_for(
        fan_in,
        fan_out,
        schedule,
        x.dtype.name,
        steps=steps,
        shared=planned,
        split=True,
    )
    return polar_factors(x, plan, NumpyOps())


class NumpyOps(DerivedVerbs):
    """The verbs of `keras_muon.matrix_ops.MatrixOps` in NumPy."""

    def gram(self, x: np.ndarray, side: Side) -> np.ndarray:
        return self.product(x, x, "right" if side == "in" else "left")

    def fused(
        self, alpha: float, c: np.ndarray, beta: float, a: np.ndarray, b: np.ndarray
    ) -> np.ndarray:
        return alpha * c + beta * (a @ b)

    symmetric = fused

    def applied(
        self, identity: float, total: np.ndarray, x: np.ndarray, side: Side
    ) -> np.ndarray:
        return identity * x + (total @ x if side == "in" else x @ total)

    def squared(self, x: np.ndarray) -> np.ndarray:
        return x @ x

    def product(self, a: np.ndarray, b: np.ndarray, turned: Turned) -> np.ndarray:
        if turned == "left":
            return np.swapaxes(a, -1, -2) @ b
        return a @ np.swapaxes(b, -1, -2)

    def mixed(self, x: np.ndarray, signs: Signs, side: Side) -> np.ndarray:
        if side == "out":
            return np.swapaxes(self.mixed(np.swapaxes(x, -1, -2), signs, "in"), -1, -2)
        *stack, _, fan_out = x.shape
        groups = x.reshape(*stack, -1, GROUP, fan_out)
        sums = np.array(signs, x.dtype) @ groups
        return sums.reshape(*stack, -1, fan_out)

    def combined(
        self, alpha: float, x: np.ndarray, beta: float, y: np.ndarray
    ) -> np.ndarray:
        return alpha * x + beta * y

    def scaled(self, alpha: float, x: np.ndarray) -> np.ndarray:
        return alpha * x

    def on_grid(self, x: np.ndarray, bits: int) -> np.ndarray:
        return np.round(x * 2.0**bits) * 2.0**-bits

    def multiplied(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return x * y

    def divided(self, x: np.ndarray, y: np.ndarray, dtype: str) -> np.ndarray:
        return (x / y).astype(dtype)

    def reciprocal(self, y: np.ndarray) -> np.ndarray:
        return 1 / y

    def at_least(self, y: np.ndarray, least: float) -> np.ndarray:
        return np.maximum(y, np.asarray(least, y.dtype))

    def root(self, y: np.ndarray) -> np.ndarray:
        return np.sqrt(y)

    def rest_of_one(self, y: np.ndarray, at_least: float) -> np.ndarray:
        return np.sqrt(self.at_least(1.0 - y * y, at_least**2))

    def largest_entry(self, x: np.ndarray) -> np.ndarray:
        return np.abs(x).max(axis=(-2, -1), keepdims=True)

    def frobenius_norm(self, x: np.ndarray) -> np.ndarray:
        rows = np.square(x).sum(axis=-1, keepdims=True)
        return np.sqrt(rows.sum(axis=-2, keepdims=True))

    def cast(self, x: np.ndarray, dtype: str) -> np.ndarray:
        return x.astype(dtype)

    def dtype_of(self, x: np.ndarray) -> str:
        return x.dtype.name
