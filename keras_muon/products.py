"""The matrix products of a plan: operations, and bytes to and from memory.

What is scaled or added beside them is left out, as are momentum and weights.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from keras_muon.admissible import Triple
from keras_muon.leading import GROUP

# Bytes of an entry of the dtypes that products may have.
ITEMSIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


class Product(NamedTuple):
    """One matrix product of a plan.

    Args:
        rows: Rows of the result.
        inner: Extent that is summed over.
        columns: Columns of the result.
        read: Entries of the factors and of what is added, those of a matrix once.
        itemsize: Bytes of an entry.
        share: Share of the product that is computed, 1 unless it is symmetric.
    """

    rows: int
    inner: int
    columns: int
    read: int
    itemsize: int
    share: float = 1.0

    @property
    def flops(self) -> float:
        """Floating-point operations; a multiply-add is two."""
        return 2.0 * self.rows * self.inner * self.columns * self.share

    @property
    def bytes_moved(self) -> int:
        """Bytes that are read and written, each entry once."""
        return self.itemsize * (self.read + self.rows * self.columns)


def panel_edges(extent: int, panels: int) -> list[tuple[int, int]]:
    """Return where each panel of a symmetric product begins and ends (exclusive).

    Example:
        >>> panel_edges(10, 4)
        [(0, 3), (3, 6), (6, 9), (9, 10)]
    """
    width = -(-extent // panels)
    starts = [*range(0, extent, width), extent]
    return list(itertools.pairwise(starts))


def products_of_steps(
    short: int,
    long: int,
    dtype: str,
    segments: Sequence[Sequence[Triple]],
    *,
    panels: int,
    schatten: bool,
    split: int = 0,
) -> Iterator[Product]:
    """Yield what `keras_muon.newton_schulz.segment` multiplies, for all segments.

    Args:
        short: The matrix's smaller extent.
        long: Its larger extent.
        dtype: Dtype of the products.
        segments: The triples of the steps that share a Gram matrix.
        panels: In how many panels symmetric products are computed.
        schatten: Whether R R of the first Gram matrix R is asked for in any case.
        split: In how many first segments the product with X is split.
    """
    square, whole, size = short * short, short * long, ITEMSIZES[dtype]
    share = (panels + 1) / (2 * panels)
    for number, segment in enumerate(segments):
        yield Product(short, long, short, whole, size, share)
        if schatten and number == 0 and not segment[0][2]:
            yield Product(short, short, short, square, size, share)
        for position, (_, _, c) in enumerate(segment):
            moves_on = position + 1 < len(segment)
            # R R; twice a I + H, on the way to the next R; and the product of factors.
            distinct = [1] * bool(c) + [2, 2] * moves_on + [3] * (position > 0)
            for matrices in distinct:
                yield Product(short, short, short, matrices * square, size, share)
        yield Product(short, short, long, square + whole, size)
        if number < split:
            for _ in range(2):
                yield Product(short, short, long, square + 2 * whole, size)


def products_of_compression(
    short: int,
    long: int,
    dtype: str,
    count: int,
    basis: Sequence[Product],
    values: Sequence[Product],
) -> Iterator[Product]:
    """Yield what `keras_muon.compression.compressed` multiplies.

    Args:
        short: The matrix's smaller extent.
        long: Its larger extent.
        dtype: Dtype of the products, but the last.
        count: Number of directions in the basis.
        basis: What makes the basis orthonormal.
        values: What makes the leading values equal.
    """
    whole, small, wide, size = short * long, short * count, count * long, ITEMSIZES
    yield Product(count, GROUP, long, whole, size[dtype])
    yield Product(short, long, count, whole + wide, size[dtype])
    yield from basis
    yield Product(count, short, long, small + whole, size[dtype])
    yield from values
    # In the dtype of the update.
    widest = max(size[dtype], size["float32"])
    yield Product(short, count, long, whole + small + wide, widest)
