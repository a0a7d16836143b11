"""A product that is rounded once, in the arithmetic of its dtype.

    X = X1 + X2,   M = M1 + M2,   M X = M1 X1 + (M1 X2 + M2 X)

X1 and M1 are multiples of powers of two with so few bits that products and sums of them
are exact in float32. What is rounded on the way is in the bracket, a thousandth of
the result, and then the last sum.

In Newton-Schulz, M X cancels to a part of its terms in the directions that X has, and
the rounding of these terms reaches the ones that X lacks.

Source: Ozaki, Ogita, Oishi and Rump 2012, Error-free transformations of matrix
multiplication, doi.org/10.1007/s11075-011-9478-1; here of two parts, on fixed grids.
"""

import math

from keras_muon.matrix_ops import Matrix, MatrixOps
from keras_muon.plan import Side

# X1 has multiples of 2^-9, for entries of about 1. With M1 below, at a slope of 3, 20
# of the 24 bits of float32 are behind the point, and sums to 16 are exact.
BITS_OF_X = 9

# M1 has multiples of 2^-13, times the power of two above its largest value, the slope.
BITS_OF_FACTOR = 13


def applied_split(
    identity: float, total: Matrix, x: Matrix, side: Side, ops: MatrixOps
) -> Matrix:
    """Return (identity * I + total) X for side "in", X (...) for side "out".

    Args:
        identity: The slope of the step at zero.
        total: Symmetric matrices of the short side.
        x: Matrices, of entries of about 1.
        side: The short side.
        ops: The carrier.
    """
    bits = BITS_OF_FACTOR - math.frexp(identity)[1]
    slope = round(identity * 2.0**bits) * 2.0**-bits
    coarse_x, coarse_total = ops.on_grid(x, BITS_OF_X), ops.on_grid(total, bits)
    fine_x = ops.combined(1.0, x, -1.0, coarse_x)
    fine_total = ops.combined(1.0, total, -1.0, coarse_total)
    rest = ops.combined(slope, fine_x, identity - slope, x)
    for factor, matrix in ((coarse_total, fine_x), (fine_total, x)):
        left, right = (factor, matrix) if side == "in" else (matrix, factor)
        rest = ops.fused(1.0, rest, 1.0, left, right)
    exact = ops.applied(slope, coarse_total, coarse_x, side)
    return ops.combined(1.0, exact, 1.0, rest)
