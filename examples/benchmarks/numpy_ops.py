"""The iteration on NumPy arrays: the smallest carrier that `keras_muon` runs on."""

from collections.abc import Sequence

import numpy as np

from keras_muon.newton_schulz import newton_schulz
from keras_muon.plan import Side, plan_for

Triple = tuple[float, float, float]


def orthogonalize(x: np.ndarray, triples: Sequence[Triple]) -> np.ndarray:
    """Return NS of the matrices in the last two axes, in the dtype of `x`."""
    *_, fan_in, fan_out = x.shape
    plan = plan_for(fan_in, fan_out, tuple(triples), x.dtype.name)
    return newton_schulz(x, plan, NumpyOps())


class NumpyOps:
    """The verbs of `keras_muon.newton_schulz.MatrixOps` in NumPy."""

    def gram(self, x: np.ndarray, side: Side) -> np.ndarray:
        transposed = np.swapaxes(x, -1, -2)
        return x @ transposed if side == "in" else transposed @ x

    def fused(
        self, alpha: float, c: np.ndarray, beta: float, a: np.ndarray, b: np.ndarray
    ) -> np.ndarray:
        return alpha * c + beta * (a @ b)

    symmetric = fused

    def combined(
        self, alpha: float, x: np.ndarray, beta: float, y: np.ndarray
    ) -> np.ndarray:
        return alpha * x + beta * y

    def scaled(self, alpha: float, x: np.ndarray) -> np.ndarray:
        return alpha * x

    def divided(self, x: np.ndarray, y: np.ndarray, at_least: float) -> np.ndarray:
        return x / np.maximum(y, np.asarray(at_least, y.dtype))

    def largest_entry(self, x: np.ndarray) -> np.ndarray:
        return np.abs(x).max(axis=(-2, -1), keepdims=True)

    def frobenius_norm(self, x: np.ndarray) -> np.ndarray:
        rows = np.square(x).sum(axis=-1, keepdims=True)
        return np.sqrt(rows.sum(axis=-2, keepdims=True))

    def cast(self, x: np.ndarray, dtype: str) -> np.ndarray:
        return x.astype(dtype)
