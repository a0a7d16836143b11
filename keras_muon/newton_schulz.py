"""The Newton-Schulz iteration, written once for every carrier of matrices.

    X <- U / |U|_F,   then per triple (a, b, c):   A = X X^T
                                                   X <- a X + (b A + c A A) X

A carrier is anything with the verbs of `MatrixOps`: tensors of a Keras backend, or a
recorder that writes each verb down as an ONNX node. Everything that depends on shapes
is decided here in plain Python, before a matrix is touched.

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from keras_muon.admissible import Triple

# A carrier's own matrix type; only the carrier looks inside.
Matrix = Any
Side = Literal["in", "out"]

# The smallest normal float32 number. Dividing by less would overflow, and processors
# that flush smaller numbers to zero would divide by zero.
SMALLEST_NORMAL = 1.1754943508222875e-38


class MatrixOps(Protocol):
    """What a carrier must know. Matrices are the last two axes: in, out."""

    def gram(self, x: Matrix, side: Side) -> Matrix:
        """Return X X^T for side "in", X^T X for side "out"."""

    def fused(
        self, alpha: float, c: Matrix, beta: float, a: Matrix, b: Matrix
    ) -> Matrix:
        """Return alpha * C + beta * A @ B."""

    def scaled(self, alpha: float, x: Matrix) -> Matrix:
        """Return alpha * X."""

    def divided(self, x: Matrix, y: Matrix, at_least: float) -> Matrix:
        """Return X / max(Y, at_least), for one Y per matrix."""

    def largest_entry(self, x: Matrix) -> Matrix:
        """Return max |X| per matrix, with both axes kept."""

    def frobenius_norm(self, x: Matrix) -> Matrix:
        """Return the root of the sum of squares, first per row, then over rows.

        The two stages keep the float32 error near 1e-7 where a single sum over a
        large matrix loses three digits.
        """

    def cast(self, x: Matrix, dtype: str) -> Matrix:
        """Return X in another dtype."""


def newton_schulz(
    x: Matrix,
    *,
    fan_in: int,
    fan_out: int,
    triples: Sequence[Triple],
    compute_dtype: str,
    ops: MatrixOps,
) -> Matrix:
    """Return the approximate polar factor of each matrix.

    Args:
        x: Matrices of shape (..., fan_in, fan_out), in float32 or float64.
        fan_in: Extent of the last axis but one.
        fan_out: Extent of the last axis.
        triples: One (a, b, c) per step, from `Schedule.take`.
        compute_dtype: Dtype of the products. The norm is taken before the cast.
        ops: The carrier.

    Returns:
        Matrices of the same shape in `compute_dtype`. Zero gives zero, and the scale
        of `x` makes no difference.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
    """
    x = ops.cast(normalized(x, ops), compute_dtype)
    return iterated(x, triples, short_side(fan_in, fan_out), ops)


def short_side(fan_in: int, fan_out: int) -> Side:
    """Return the side whose Gram matrix is the smaller one.

    Both sides give the same result, since p(X X^T) X = X p(X^T X).
    """
    return "in" if fan_in <= fan_out else "out"


def iterated(
    x: Matrix, triples: Sequence[Triple], side: Side, ops: MatrixOps
) -> Matrix:
    """Return X after one step per triple."""
    for triple in triples:
        x = step(x, triple, side, ops)
    return x


def normalized(x: Matrix, ops: MatrixOps) -> Matrix:
    """Return each matrix divided by its Frobenius norm, whatever its scale.

    Dividing by the largest entry first makes that entry exactly 1, so the squares can
    neither overflow nor vanish and the norm is at least 1. No epsilon is needed: only
    a matrix of zeros has a smaller norm, and it stays zero.
    """
    x = ops.divided(x, ops.largest_entry(x), at_least=SMALLEST_NORMAL)
    return ops.divided(x, ops.frobenius_norm(x), at_least=1.0)


def step(x: Matrix, triple: Triple, side: Side, ops: MatrixOps) -> Matrix:
    """Return a X + (b A + c A A) X with A on the short side."""
    a, b, c = triple
    gram = ops.gram(x, side)
    # A cubic step (c = 0) needs two products instead of three.
    inner = ops.fused(b, gram, c, gram, gram) if c else ops.scaled(b, gram)
    left, right = (inner, x) if side == "in" else (x, inner)
    return ops.fused(a, x, 1.0, left, right)
