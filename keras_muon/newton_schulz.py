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

from keras_muon.admissible import Triple
from keras_muon.matrix_ops import Matrix, MatrixOps
from keras_muon.plan import Plan, Side
from keras_muon.split_products import applied_split

# The smallest normal float32 number. Dividing by less would overflow, and processors
# that flush smaller numbers to zero would divide by zero. For float64 as well: with its
# own, runtimes that compute graphs of it in float32 would make NaN of zero.
SMALLEST_NORMAL = 2.0**-126

# Of a matrix in units of its largest entry, whose norm is 1 or more unless it is zero.
# Well below 1, where a clamp would take half of the gradient.
SMALLEST_NORM = 0.5


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
    segments, side, dtype = plan.segments, plan.side, plan.compute_dtype
    if plan.split:
        return iterated_split(x, segments, side, ops, plan.split, dtype=dtype)
    return iterated(normalized(x, ops, dtype), segments, side, ops)


def iterated(
    x: Matrix, segments: Sequence[Sequence[Triple]], side: Side, ops: MatrixOps
) -> Matrix:
    """Return X after all segments."""
    for triples in segments:
        x = segment(x, triples, side, ops)
    return x


def iterated_split(
    x: Matrix,
    segments: Sequence[Sequence[Triple]],
    side: Side,
    ops: MatrixOps,
    split: int,
    *,
    dtype: str,
) -> Matrix:
    """Return X, of any scale, after all segments, with more digits than `iterated`.

    The norm scales X for its Gram matrices, and after its last split product. Scaled
    itself, every entry would be rounded by what depends on the carrier, the last bit of
    the norm. The largest entry, in whose units X is taken, has the same bits
    everywhere; and so has the product with its reciprocal, which is how XLA divides.

    Args:
        x: Matrices, in float32 or float64.
        segments: The triples of all steps.
        side: Side of the Gram matrices.
        ops: The carrier.
        split: In how many first segments the product with X is split.
        dtype: Of the products and of the result.
    """
    x = ops.cast(ops.multiplied(x, ops.reciprocal(unit_of(x, ops))), dtype)
    scale = ops.reciprocal(ops.at_least(ops.frobenius_norm(x), SMALLEST_NORM))
    for triples in segments[:split]:
        gram = ops.gram(ops.multiplied(x, scale), side)
        x = segment(x, triples, side, ops, gram=gram, split=True)
    return iterated(ops.multiplied(x, scale), segments[split:], side, ops)


def normalized(x: Matrix, ops: MatrixOps, dtype: str) -> Matrix:
    """Return each matrix divided by its Frobenius norm, whatever its scale.

    In units of the largest entry the squares can neither overflow nor vanish, and the
    norm is at least 1. No epsilon is needed: only a matrix of zeros has a smaller norm,
    and it stays zero. A carrier that sees that squares are in range saves this unit.

    Args:
        x: Matrices, in float32 or float64, in which the norm is taken.
        ops: The carrier.
        dtype: Of the result.
    """
    norm = ops.plain_norm(x)
    if norm is None:
        x = ops.divided(x, unit_of(x, ops), ops.dtype_of(x))
        norm = ops.at_least(ops.frobenius_norm(x), SMALLEST_NORM)
    return ops.divided(x, norm, dtype)


def unit_of(x: Matrix, ops: MatrixOps) -> Matrix:
    """Return the largest entry of each matrix, large enough to be divided by."""
    return ops.at_least(ops.largest_entry(x), SMALLEST_NORMAL)


def segment(
    x: Matrix,
    triples: Sequence[Triple],
    side: Side,
    ops: MatrixOps,
    *,
    gram: Matrix = None,
    inner: Matrix = None,
    split: bool = False,
) -> Matrix:
    """Return X after one step per triple, all taken from one Gram matrix R = X X^T.

    With H = b R + c R R, a step is X <- (a I + H) X and R <- (a I + H) R (a I + H). The
    product of the factors a I + H is kept as identity * I + total; where a carrier's
    factors hold their identity, it is total alone.
    One triple alone is the step of the paper: a X + (b R + c R R) X.

    Args:
        x: Matrices.
        triples: One (a, b, c) per step.
        side: Side of the Gram matrix.
        ops: The carrier.
        gram: R, if it is known. It is not asked for if there is one triple with a
            known H.
        inner: H of the first triple, if it is known.
        split: Whether the product with X is split, to save digits.
    """
    gram = ops.gram(x, side) if gram is None else gram
    identity, total = 1.0, None
    for position, (a, b, c) in enumerate(triples, start=1):
        if inner is None:
            outside, inner = ops.step_factor(a, b, c, gram)
        else:
            outside, inner = ops.with_identity(a, inner)
        if position < len(triples):
            half = ops.symmetric(outside, gram, 1.0, inner, gram)
            gram = ops.symmetric(outside, half, 1.0, inner, half)
        if total is None:
            total = inner
        elif outside or identity:
            linear = ops.combined(outside, total, identity, inner)
            total = ops.symmetric(1.0, linear, 1.0, inner, total)
        else:
            total = ops.symmetric(0.0, total, 1.0, inner, total)
        identity, inner = identity * outside, None
    if split:
        return applied_split(identity, total, x, side, ops)
    return ops.applied(identity, total, x, side)
