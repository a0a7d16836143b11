"""MatrixOps in NumPy that rounds as a narrow dtype would."""

import numpy as np

from keras_muon.leading import GROUP
from keras_muon.matrix_ops import DerivedVerbs


class Rounded(np.ndarray):
    """A float32 array that holds numbers of a narrower dtype."""


class RoundingOps(DerivedVerbs):
    """MatrixOps in NumPy: float32 products, each rounded to a narrow dtype.

    Args:
        dtype: The narrow dtype, as NumPy has it.
        name: Its name in a plan.
    """

    def __init__(self, dtype, name):
        self.dtype, self.name = dtype, name

    def rounded(self, x):
        return x.astype(self.dtype).astype("float32").view(Rounded)

    def as_of(self, x, result):
        return self.rounded(result) if isinstance(x, Rounded) else result

    def gram(self, x, side):
        return self.product(x, x, "right" if side == "in" else "left")

    def fused(self, alpha, c, beta, a, b):
        return self.as_of(c, np.float32(alpha) * c + np.float32(beta) * (a @ b))

    symmetric = fused

    def applied(self, identity, total, x, side):
        left, right = (total, x) if side == "in" else (x, total)
        return self.fused(identity, x, 1.0, left, right)

    def squared(self, x):
        return self.rounded(x @ x)

    def product(self, a, b, turned):
        if turned == "left":
            return self.rounded(np.swapaxes(a, -1, -2) @ b)
        return self.rounded(a @ np.swapaxes(b, -1, -2))

    def mixed(self, x, signs, side):
        signs = np.array(signs, "float32")
        rows = x if side == "in" else np.swapaxes(x, -1, -2)
        groups = rows.reshape(*rows.shape[:-2], -1, GROUP, rows.shape[-1])
        sums = (signs @ groups).reshape(*rows.shape[:-2], -1, rows.shape[-1])
        return self.rounded(sums if side == "in" else np.swapaxes(sums, -1, -2))

    def combined(self, alpha, x, beta, y):
        return self.as_of(x, np.float32(alpha) * x + np.float32(beta) * y)

    def scaled(self, alpha, x):
        return self.as_of(x, np.float32(alpha) * x)

    def multiplied(self, x, y):
        return self.as_of(x, x * self.as_of(x, y))

    def divided(self, x, y, dtype):
        return self.cast(self.as_of(x, x / self.as_of(x, y)), dtype)

    def reciprocal(self, y):
        return np.float32(1.0) / y

    def at_least(self, y, least):
        return np.maximum(y, np.float32(least))

    def root(self, y):
        return np.sqrt(y)

    def rest_of_one(self, y, at_least):
        return np.sqrt(np.maximum(np.float32(1.0) - y * y, np.float32(at_least**2)))

    def largest_entry(self, x):
        return np.abs(x).max(axis=(-2, -1), keepdims=True)

    def frobenius_norm(self, x):
        x = np.asarray(x)
        return np.sqrt((x * x).sum(-1, keepdims=True).sum(-2, keepdims=True))

    def cast(self, x, dtype):
        return self.rounded(x) if dtype == self.name else np.asarray(x)

    def dtype_of(self, x):
        return self.name if isinstance(x, Rounded) else "float32"
