"""The Newton-Schulz iteration, written once for every carrier of matrices.

    X <- U / |U|_F,   then per triple (a, b, c):   A = X X^T
                                                   X <- a X + (b A + c A A) X

Several steps may share one Gram matrix: they are then polynomials of it, and X is
multiplied once, by their product (`segment`). A carrier is anything with the verbs of
`MatrixOps`: tensors of a Keras backend, or a recorder that writes each verb down as an
ONNX node. What depends on shapes was decided in plain Python, by a `Plan`.

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; the shared Gram matrix is
that of Zhang et al. 2026, github.com/Dao-AILab/gram-newton-schulz.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from keras_muon.admissible import Triple
from keras_muon.plan import Plan, Side

# A carrier's own matrix type; only the carrier looks inside.
Matrix = Any

# Which factor of a product is transposed.
Turned = Literal["left", "right"]

# The smallest normal float32 number. Dividing by less would overflow, and processors
# that flush smaller numbers to zero would divide by zero. For float64 as well: with its
# own, runtimes that compute graphs of it in float32 would make NaN of zero.
SMALLEST_NORMAL = 2.0**-126


class MatrixOps(Protocol):
    """What a carrier must know. Matrices are the last two axes: in, out.

    What is divided, and the C of `fused`, is not used again: a carrier may write there.
    """

    def gram(self, x: Matrix, side: Side) -> Matrix:
        """Return X X^T for side "in", X^T X for side "out"."""

    def fused(
        self, alpha: float, c: Matrix, beta: float, a: Matrix, b: Matrix
    ) -> Matrix:
        """Return alpha * C + beta * A @ B."""

    def applied(self, identity: float, total: Matrix, x: Matrix, side: Side) -> Matrix:
        """Return (identity * I + total) X for side "in", X (...) for side "out".

        A narrow dtype in which product and sum are rounded apart needs the sum inside
        of the brackets: both terms are several times as large as the result, and the
        rounding of a product reaches directions in which X is zero.
        """

    def symmetric(
        self, alpha: float, c: Matrix, beta: float, a: Matrix, b: Matrix
    ) -> Matrix:
        """Return alpha * C + beta * A @ B where both terms are symmetric.

        A and B commute, so half of the product is redundant.
        """

    def squared(self, x: Matrix) -> Matrix:
        """Return X X of a symmetric X."""

    def product(self, a: Matrix, b: Matrix, turned: Turned) -> Matrix:
        """Return A^T B if the left is turned, A B^T if the right is."""

    def mixed(self, x: Matrix, signs: Sequence[int], side: Side) -> Matrix:
        """Return sums of signed rows (side "in") or columns (side "out").

        Each group of `leading.GROUP` gives `leading.MIXTURES` of them; `signs` are
        those of (groups, mixtures, members).
        """

    def combined(self, alpha: float, x: Matrix, beta: float, y: Matrix) -> Matrix:
        """Return alpha * X + beta * Y."""

    def scaled(self, alpha: float, x: Matrix) -> Matrix:
        """Return alpha * X."""

    def multiplied(self, x: Matrix, y: Matrix) -> Matrix:
        """Return X * Y for one Y per matrix, in the dtype of X."""

    def divided(self, x: Matrix, y: Matrix, dtype: str) -> Matrix:
        """Return X / Y for one Y per matrix, in another dtype."""

    def at_least(self, y: Matrix, least: float) -> Matrix:
        """Return max(Y, least) for one Y per matrix."""

    def root(self, y: Matrix) -> Matrix:
        """Return the square root of one Y per matrix."""

    def rest_of_one(self, y: Matrix, at_least: float) -> Matrix:
        """Return sqrt(max(1 - Y Y, at_least ** 2)) for one Y per matrix."""

    def largest_entry(self, x: Matrix) -> Matrix:
        """Return max |X| per matrix, with both axes kept."""

    def frobenius_norm(self, x: Matrix, unit: Matrix | None = None) -> Matrix:
        """Return |X / unit|_F, of squares summed first per row, then over rows.

        The two stages keep the float32 error near 1e-7 where a single sum over a
        large matrix loses three digits. Narrow dtypes are summed in float32.
        """

    def cast(self, x: Matrix, dtype: str) -> Matrix:
        """Return X in another dtype."""

    def dtype_of(self, x: Matrix) -> str:
        """Return the name of the dtype of X."""


def newton_schulz(x: Matrix, plan: Plan, ops: MatrixOps) -> Matrix:
    """Return the approximate polar factor of each matrix.

    Args:
        x: Matrices of shape (..., plan.fan_in, plan.fan_out), in float32 or float64.
        plan: Which steps share a Gram matrix, on which side, in which dtype. The norm
            is taken before the cast.
        ops: The carrier.

    Returns:
        Matrices of the same shape in `plan.compute_dtype`. Zero gives zero, and the
        scale of `x` makes no difference.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
    """
    x = normalized(x, ops, plan.compute_dtype)
    return iterated(x, plan.segments, plan.side, ops)


def iterated(
    x: Matrix, segments: Sequence[Sequence[Triple]], side: Side, ops: MatrixOps
) -> Matrix:
    """Return X after all segments."""
    for triples in segments:
        x = segment(x, triples, side, ops)
    return x


def normalized(x: Matrix, ops: MatrixOps, dtype: str) -> Matrix:
    """Return each matrix divided by its Frobenius norm, whatever its scale.

    In units of the largest entry the squares can neither overflow nor vanish, and the
    norm is at least 1. No epsilon is needed: only a matrix of zeros has a smaller norm,
    and it stays zero.

    Args:
        x: Matrices, in float32 or float64, in which the norm is taken.
        ops: The carrier.
        dtype: Of the result.
    """
    largest = ops.at_least(ops.largest_entry(x), SMALLEST_NORMAL)
    norm = ops.at_least(ops.frobenius_norm(x, largest), 1.0)
    return ops.divided(x, ops.multiplied(norm, largest), dtype)


def segment(
    x: Matrix,
    triples: Sequence[Triple],
    side: Side,
    ops: MatrixOps,
    *,
    gram: Matrix = None,
    inner: Matrix = None,
) -> Matrix:
    """Return X after one step per triple, all taken from one Gram matrix R = X X^T.

    With H = b R + c R R, a step is X <- (a I + H) X and R <- (a I + H) R (a I + H). The
    product of the factors a I + H is kept as identity * I + total.
    One triple alone is the step of the paper: a X + (b R + c R R) X.

    Args:
        x: Matrices.
        triples: One (a, b, c) per step.
        side: Side of the Gram matrix.
        ops: The carrier.
        gram: R, if it is known. It is not asked for if there is one triple with a
            known H.
        inner: H of the first triple, if it is known.
    """
    gram = ops.gram(x, side) if gram is None else gram
    identity, total = 1.0, None
    for position, (a, b, c) in enumerate(triples, start=1):
        if inner is None:
            inner = _inner(b, c, gram, ops)
        if position < len(triples):
            half = ops.symmetric(a, gram, 1.0, inner, gram)
            gram = ops.symmetric(a, half, 1.0, inner, half)
        if total is None:
            total = inner
        else:
            linear = ops.combined(a, total, identity, inner)
            total = ops.symmetric(1.0, linear, 1.0, inner, total)
        identity, inner = identity * a, None
    return ops.applied(identity, total, x, side)


def _inner(b: float, c: float, gram: Matrix, ops: MatrixOps) -> Matrix:
    """b R + c R R; a cubic step (c = 0) needs one product less."""
    if not c:
        return ops.scaled(b, gram)
    return ops.symmetric(b, gram, c, gram, gram)
