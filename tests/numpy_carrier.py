"""A carrier of matrices for tests: NumPy arrays, with a list of what was asked."""

import numpy as np

from keras_muon.matrix_ops import DerivedVerbs


class NumpyOps(DerivedVerbs):
    """The verbs of `MatrixOps` on NumPy arrays; `called` lists them in order."""

    def __init__(self):
        self.called = []

    def gram(self, x, side):
        transposed = np.swapaxes(x, -1, -2)
        result = x @ transposed if side == "in" else transposed @ x
        self.called.append(("gram", result.shape[-1]))
        return result

    def fused(self, alpha, c, beta, a, b):
        self.called.append(("fused", c.shape[-2:]))
        return alpha * c + beta * (a @ b)

    def applied(self, identity, total, x, side):
        self.called.append(("applied", x.shape[-2:]))
        return identity * x + (total @ x if side == "in" else x @ total)

    def symmetric(self, alpha, c, beta, a, b):
        self.called.append(("symmetric", c.shape[-1]))
        return alpha * c + beta * (a @ b)

    def squared(self, x):
        self.called.append(("squared", x.shape[-1]))
        return x @ x

    def product(self, a, b, turned):
        self.called.append(("product", turned))
        if turned == "left":
            return np.swapaxes(a, -1, -2) @ b
        return a @ np.swapaxes(b, -1, -2)

    def mixed(self, x, signs, side):
        self.called.append(("mixed", side))
        signs = np.array(signs, x.dtype)
        if side == "in":
            groups = x.reshape(*x.shape[:-2], -1, 16, x.shape[-1])
            sums = np.einsum("gmj,...gjk->...gmk", signs, groups)
            return sums.reshape(*x.shape[:-2], -1, x.shape[-1])
        groups = x.reshape(*x.shape[:-1], -1, 16)
        sums = np.einsum("gmj,...gj->...gm", signs, groups)
        return sums.reshape(*x.shape[:-1], -1)

    def combined(self, alpha, x, beta, y):
        self.called.append(("combined", x.shape[-2:]))
        return alpha * x + beta * y

    def scaled(self, alpha, x):
        self.called.append(("scaled", x.shape[-2:]))
        return alpha * x

    def on_grid(self, x, bits):
        self.called.append(("on_grid", bits))
        return np.rint(x * 2.0**bits) / 2.0**bits

    def multiplied(self, x, y):
        self.called.append(("multiplied", x.dtype.name))
        return x * y.astype(x.dtype)

    def divided(self, x, y, dtype):
        self.called.append(("divided", (x.dtype.name, dtype)))
        return (x / y.astype(x.dtype)).astype(dtype)

    def reciprocal(self, y):
        self.called.append(("reciprocal", y.dtype.name))
        return 1 / y

    def at_least(self, y, least):
        self.called.append(("at_least", least))
        return np.maximum(y, np.asarray(least, y.dtype))

    def root(self, y):
        self.called.append(("root", y.dtype.name))
        return np.sqrt(y)

    def rest_of_one(self, y, at_least):
        self.called.append(("rest_of_one", at_least))
        return np.sqrt(np.maximum(1 - y * y, at_least**2))

    def largest_entry(self, x):
        self.called.append(("largest_entry", x.dtype.name))
        return np.abs(x).max(axis=(-2, -1), keepdims=True)

    def frobenius_norm(self, x):
        self.called.append(("frobenius_norm", x.dtype.name))
        return np.sqrt((x * x).sum(-1, keepdims=True).sum(-2, keepdims=True))

    def cast(self, x, dtype):
        self.called.append(("cast", dtype))
        return x.astype(dtype)

    def dtype_of(self, x):
        return x.dtype.name
