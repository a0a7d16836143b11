"""A carrier of matrices for tests: extents alone, and what is asked for."""

from keras_muon.matrix_ops import DerivedVerbs

ITEMSIZES = {"float32": 4, "bfloat16": 2}


class Extents(tuple):
    """The extents of a matrix, which knows its dtype and itself from others."""

    def __new__(cls, extents, dtype="float32", stored=None):
        made = super().__new__(cls, extents)
        made.dtype = dtype
        made.stored = made if stored is None else stored
        return made

    @property
    def turned(self):
        """The transposed matrix, which is stored once."""
        return Extents(self[::-1], self.dtype, self.stored)


class CountingOps(DerivedVerbs):
    """A carrier of extents, which adds up operations and bytes of every product.

    Args:
        share: Share of a symmetric product that is computed.
    """

    def __init__(self, share=1.0):
        self.flops = self.bytes_moved = 0
        self.share = share

    def matmul(self, a, b, share=1.0, added=None):
        assert a[1] == b[0]
        assert a.dtype == b.dtype
        self.flops += 2 * a[0] * a[1] * b[1] * share
        result = Extents((a[0], b[1]), a.dtype)
        read = {id(x.stored): x for x in (a, b, added) if x is not None}
        moved = sum(x[0] * x[1] for x in [*read.values(), result])
        self.bytes_moved += ITEMSIZES[a.dtype] * moved
        return result

    def gram(self, x, side):
        left, right = (x, x.turned) if side == "in" else (x.turned, x)
        return self.matmul(left, right, self.share)

    def fused(self, alpha, c, beta, a, b):
        return self.matmul(a, b, added=c)

    def applied(self, identity, total, x, side):
        left, right = (total, x) if side == "in" else (x, total)
        return self.fused(identity, x, 1.0, left, right)

    def symmetric(self, alpha, c, beta, a, b):
        return self.matmul(a, b, self.share, added=c)

    def squared(self, x):
        return self.matmul(x, x, self.share)

    def product(self, a, b, turned):
        pair = (a.turned, b) if turned == "left" else (a, b.turned)
        return self.matmul(*pair)

    def mixed(self, x, signs, side):
        short, long = x if side == "in" else x[::-1]
        assert short == 16 * len(signs)
        mixtures = len(signs) * len(signs[0])
        self.flops += 2 * 16 * mixtures * long
        self.bytes_moved += ITEMSIZES[x.dtype] * (short + mixtures) * long
        return Extents((mixtures, long) if side == "in" else (long, mixtures), x.dtype)

    def rest_of_one(self, y, at_least):
        return y

    def largest_entry(self, x):
        return Extents((1, 1), x.dtype)

    def frobenius_norm(self, x):
        return Extents((1, 1), x.dtype)

    def combined(self, alpha, x, beta, y):
        assert x == y
        return Extents(x, x.dtype)

    def scaled(self, alpha, x):
        return Extents(x, x.dtype)

    def on_grid(self, x, bits):
        return Extents(x, x.dtype)

    def multiplied(self, x, y):
        assert y == (1, 1)
        return Extents(x, x.dtype)

    def divided(self, x, y, dtype):
        assert y == (1, 1)
        return Extents(x, dtype)

    def reciprocal(self, y):
        return y

    def at_least(self, y, least):
        return y

    def root(self, y):
        return y

    def cast(self, x, dtype):
        return Extents(x, dtype)

    def dtype_of(self, x):
        return x.dtype
