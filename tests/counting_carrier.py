"""A carrier of matrices for tests: extents alone, and the operations asked for."""


class CountingOps:
    """A carrier of shapes alone, which adds up the operations of every product.

    Args:
        share: Share of a symmetric product that is computed.
    """

    def __init__(self, share=1.0):
        self.flops = 0
        self.share = share

    def matmul(self, a, b, share=1.0):
        assert a[1] == b[0]
        self.flops += 2 * a[0] * a[1] * b[1] * share
        return (a[0], b[1])

    def gram(self, x, side):
        turned = x[::-1]
        left, right = (x, turned) if side == "in" else (turned, x)
        return self.matmul(left, right, self.share)

    def fused(self, alpha, c, beta, a, b):
        return self.matmul(a, b)

    def applied(self, identity, total, x, side):
        left, right = (total, x) if side == "in" else (x, total)
        return self.fused(identity, x, 1.0, left, right)

    def symmetric(self, alpha, c, beta, a, b):
        return self.matmul(a, b, self.share)

    def squared(self, x):
        return self.matmul(x, x, self.share)

    def product(self, a, b, turned):
        pair = (a[::-1], b) if turned == "left" else (a, b[::-1])
        return self.matmul(*pair)

    def mixed(self, x, signs, side):
        short, long = x if side == "in" else x[::-1]
        self.flops += 2 * len(signs) * long
        mixtures = len(signs) // 16
        assert mixtures * 16 == 3 * short
        return (mixtures, long) if side == "in" else (long, mixtures)

    def rest_of_one(self, y, at_least):
        return y

    def largest_entry(self, x):
        return (1, 1)

    def frobenius_norm(self, x, unit=None):
        return (1, 1)

    def combined(self, alpha, x, beta, y):
        assert x == y
        return x

    def scaled(self, alpha, x):
        return x

    def multiplied(self, x, y):
        assert y == (1, 1)
        return x

    def divided(self, x, y, dtype):
        return self.multiplied(x, y)

    def at_least(self, y, least):
        return y

    def root(self, y):
        return y

    def cast(self, x, dtype):
        return x

    def dtype_of(self, x):
        return "float32"
