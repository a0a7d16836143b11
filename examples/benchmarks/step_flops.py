"""Floating-point operations of Newton-Schulz, counted from shapes.

A multiplication and an addition are two operations. With m the short and n the long
side of X, a triple (a, b, c) takes

    X X^T        2 m m n
    A A          2 m m m     only if c is not 0
    (b A + c A A) X   2 m m n

All that is elementwise (the norm, sums, momentum, decay) is left out, as is usual.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from keras_muon.schedules import SCHEDULES

Shape = tuple[int, int]
Triple = tuple[float, float, float]

JORDAN: tuple[Triple, ...] = SCHEDULES["jordan"].take()


def newton_schulz_flops(shapes: Iterable[Shape], triples: Sequence[Triple]) -> int:
    """Return the operations of one Newton-Schulz of every matrix.

    Args:
        shapes: (in, out) of each matrix.
        triples: One (a, b, c) per step.

    Example:
        >>> newton_schulz_flops([(2, 3)], [(3.4445, -4.775, 2.0315)])
        64
    """
    return sum(_of_triple(shape, triple) for shape in shapes for triple in triples)


def flops_of(optimizer: Any) -> int:
    """Return the operations of a built `keras_muon.Muon`, from its plans."""
    return round(sum(matrices * plan.flops for matrices, plan in optimizer.plans))


def dtype_of(optimizer: Any) -> str:
    """Return the dtype in which a built `keras_muon.Muon` multiplies most."""
    flops: dict[str, float] = {}
    for count, plan in optimizer.plans:
        so_far = flops.get(plan.compute_dtype, 0.0)
        flops[plan.compute_dtype] = so_far + count * plan.flops
    return max(flops, key=flops.__getitem__)


def _of_triple(shape: Shape, triple: Triple) -> int:
    short, long = min(shape), max(shape)
    square = 2 * short**3 if triple[2] else 0
    return 4 * short * short * long + square
