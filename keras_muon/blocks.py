"""Products with X that keep their digits: a sum in blocks of the short side.

Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, 2.5 and 4.2.
"""

import math
from collections.abc import Iterator

from keras_muon.matrix_ops import Matrix, MatrixOps
from keras_muon.plan import Side
from keras_muon.products import Edges


def applied_in_blocks(
    identity: float,
    total: Matrix,
    x: Matrix,
    side: Side,
    edges: Edges,
    ops: MatrixOps,
) -> Matrix:
    """(identity * I + total) X with a third of the rounding, or less.

    Where X lacks a direction, both terms are several times as large as their sum. Of
    the first one the power of two, which rounds nothing, waits until the rest is about
    its opposite, so that the last sum is exact (Sterbenz); and sums that begin with
    what is left of it, and go in blocks, stay small on the way.

    Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, 2.5 and 4.2.
    """
    power = 2.0 ** math.floor(math.log2(identity))
    rest = ops.blocked(identity - power, x, total, side, edges)
    return ops.combined(1.0, rest, power, x)


def factors_by_block(
    x: Matrix, total: Matrix, side: Side, edges: Edges
) -> Iterator[tuple[Matrix, Matrix]]:
    """Yield the factors whose products add up to total X, or X total.

    Args:
        x: Matrices, as tensors or arrays that can be sliced.
        total: Square ones, of the short side.
        side: The short side: "in" for total X, "out" for X total.
        edges: Where each block of it begins and ends.
    """
    left, right = (total, x) if side == "in" else (x, total)
    for start, end in edges:
        yield left[..., start:end], right[..., start:end, :]
