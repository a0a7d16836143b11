"""The matrix products of a plan: operations, and bytes to and from memory.

What is scaled or added beside them is left out, as are momentum and weights.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from keras_muon.leading import GROUP

if TYPE_CHECKING:
    from keras_muon.plan import Leading, Plan

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


def products_of(plan: "Plan") -> Iterator[Product]:
    """Yield the products of one matrix, in order.

    They are those of `keras_muon.compression` and of `newton_schulz.segment`.

    Args:
        plan: How its polar factor is computed.
    """
    short, long = sorted((plan.fan_in, plan.fan_out))
    square, whole = short * short, short * long
    size = ITEMSIZES[plan.compute_dtype]
    share = (plan.panels + 1) / (2 * plan.panels)
    if plan.leading:
        yield from _products_of_compression(plan.leading, short, long, size)
    for number, segment in enumerate(plan.segments):
        yield Product(short, long, short, whole, size, share)
        if plan.leading and number == 0 and not segment[0][2]:
            # For the Schatten-8 norm.
            yield Product(short, short, short, square, size, share)
        for position, (_, _, c) in enumerate(segment):
            moves_on = position + 1 < len(segment)
            # R R; twice a I + H, on the way to the next R; and the product of factors.
            distinct = [1] * bool(c) + [2, 2] * moves_on + [3] * (position > 0)
            for matrices in distinct:
                yield Product(short, short, short, matrices * square, size, share)
        yield Product(short, short, long, square + whole, size)


def _products_of_compression(
    leading: "Leading", short: int, long: int, size: int
) -> Iterator[Product]:
    whole, basis, values = short * long, short * leading.count, leading.count * long
    yield Product(leading.count, GROUP, long, whole, size)
    yield Product(short, long, leading.count, whole + values, size)
    yield from leading.basis.products
    yield Product(leading.count, short, long, basis + whole, size)
    yield from leading.values.products
    # Of the dtype of the update, see `keras_muon.compression.compressed`.
    wide = max(size, ITEMSIZES["float32"])
    yield Product(short, leading.count, long, whole + basis + values, wide)
