"""Polar factors in fewer steps: leading singular values are compressed first.

    Z = X (S X)^T,  Y = polar(Z)          a basis of leading directions; S mixes rows
    T = Y^T X,      O = polar(T)          what X does in them
    X <- X + Y (t O - T)                  their values become t, the size of the rest
    X <- X / |X|_8,  then Newton-Schulz   with |X|_8 = |(X X^T)^2|_F^(1/4)

Y spans a space that X X^T nearly maps into itself, so the polar factor stays, and the
values that Newton-Schulz must serve span a tenth of the range. `polar` is Newton-Schulz
itself on matrices of a few directions. On a flat spectrum t O is about T, and nothing
changes. The Schatten-8 norm is above the largest singular value as the Frobenius norm
is, but nearer, and its products are those of the first step.

Source: the range finder of Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithm
4.3 with q = 1; compressing by it before Newton-Schulz is this project's own. Schatten
norms before Newton-Schulz: Grishina et al. 2025, arXiv:2506.10935 (CANS).
"""

from keras_muon.matrix_ops import Matrix, MatrixOps
from keras_muon.newton_schulz import (
    iterated,
    newton_schulz,
    normalized,
    segment,
)
from keras_muon.plan import Leading, Plan, Side

# Of the Schatten-8 norm. Compression leaves 1e-12 of a matrix of norm 1 at least, so
# only one of zeros has less. Far enough from the smallest normal number to be divided.
SMALLEST_FOURTH_POWER = 2.0**-100


def polar_factors(x: Matrix, plan: Plan, ops: MatrixOps) -> Matrix:
    """Return the approximate polar factor of each matrix, as its plan says.

    Args:
        x: Matrices of shape (..., plan.fan_in, plan.fan_out), in float32 or float64.
        plan: How. Its norms are taken in the dtype of `x`.
        ops: The carrier.

    Returns:
        Matrices of the same shape in `plan.compute_dtype`. Zero gives zero, and the
        scale of `x` makes no difference.
    """
    if plan.leading is None:
        return newton_schulz(x, plan, ops)
    normal = normalized(x, ops, ops.dtype_of(x))
    even = compressed(normal, plan.leading, plan.side, ops, dtype=plan.compute_dtype)
    return _iterated_from_schatten(even, plan, ops)


def compressed(
    x: Matrix, leading: Leading, side: Side, ops: MatrixOps, *, dtype: str
) -> Matrix:
    """Return X with leading singular values of about the size of the others.

    X itself is never rounded before: a narrow dtype would leave rounding in all
    directions, which in a matrix of low rank is as large as what compression leaves.

    Args:
        x: Matrices of Frobenius norm 1, in float32 or float64.
        leading: The sizes and plans.
        side: The short side.
        ops: The carrier.
        dtype: Of the products, but the last, and of the result.
    """
    wide, narrow = ops.dtype_of(x), ops.cast(x, dtype)
    mixed = ops.mixed(narrow, leading.signs, side)
    if side == "in":
        reached = ops.product(narrow, mixed, turned="right")
    else:
        reached = ops.product(mixed, narrow, turned="left")
    basis = newton_schulz(ops.cast(reached, wide), leading.basis, ops)
    if side == "in":
        inside = ops.product(basis, narrow, turned="left")
    else:
        inside = ops.product(narrow, basis, turned="right")
    inside = ops.cast(inside, wide)
    # Kept in a copy: what the iteration divides may be overwritten.
    negative = ops.scaled(-1.0, inside)
    equal = ops.cast(newton_schulz(inside, leading.values, ops), wide)
    norm = ops.frobenius_norm(negative)
    size = ops.rest_of_one(norm, leading.smallest_rest * leading.others**0.5)
    equal = ops.scaled(leading.others**-0.5, ops.multiplied(equal, size))
    change = ops.combined(1.0, equal, 1.0, negative)
    basis = ops.cast(basis, wide)
    left, right = (basis, change) if side == "in" else (change, basis)
    return ops.cast(ops.fused(1.0, x, 1.0, left, right), dtype)


def _iterated_from_schatten(x: Matrix, plan: Plan, ops: MatrixOps) -> Matrix:
    """Divide by the Schatten-8 norm, and take the steps.

    The Gram matrix and its square, which tell the norm, are those of the first step.
    """
    gram = ops.gram(x, plan.side)
    square = ops.squared(gram)
    # |X|_8 to the fourth power, and to the second.
    fourth = ops.at_least(ops.frobenius_norm(square), SMALLEST_FOURTH_POWER)
    second = ops.root(fourth)
    x = ops.divided(x, ops.root(second), plan.compute_dtype)
    first, *others = plan.segments
    (_, b, c), inner = first[0], None
    if c:
        # b R + c R R of the divided X, from those that are not.
        quadratic = ops.divided(square, ops.scaled(1.0 / c, fourth), plan.compute_dtype)
        inner = ops.added(quadratic, ops.scaled(b, ops.reciprocal(second)), gram)
    if len(first) > 1 or not c:
        gram = ops.divided(gram, second, plan.compute_dtype)
    x = segment(x, first, plan.side, ops, gram=gram, inner=inner)
    return iterated(x, others, plan.side, ops)
