"""How the polar factors of one shape are computed, decided before any tensor exists.

What a plan chooses is made in `keras_muon.plan_choice`. Some of it changes the cost
alone: on which side the Gram matrix is taken, which steps share one, and in how many
panels a symmetric product is computed. Whether products are split changes the last
digits. The dtype, and whether leading singular values are compressed first, change the
result too, within the contract of quality.
"""

import dataclasses
import functools
from typing import Literal

from keras_muon.admissible import Triple
from keras_muon.leading import Signs
from keras_muon.products import (
    Product,
    products_of_compression,
    products_of_steps,
)

Side = Literal["in", "out"]
Segments = tuple[tuple[Triple, ...], ...]

# How large matrices of one shape follow each other: not at all, in a loop that writes
# factors into the stack, or apart, without a stack.
Loop = Literal["none", "in_stack", "apart"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The way to the polar factors of all matrices of one shape.

    Args:
        fan_in: Extent of a matrix's first axis.
        fan_out: Extent of its second axis.
        segments: The triples of all steps; those in one segment share a Gram matrix.
        compute_dtype: Dtype of the products.
        panels: Number of column panels of a symmetric product; 1 computes it whole.
        split: In how many first segments the product with X is split, to save digits.
        leading: How leading singular values are compressed first; None if they are not.
        loop: How the matrices of a stack follow each other.
        reason: Why this plan and no other.

    Example:
        >>> from keras_muon.plan_choice import plan_for
        >>> from keras_muon.schedules import SCHEDULES
        >>> plan = plan_for(768, 3072, SCHEDULES["you"], "float32")
        >>> plan.method, plan.side, [len(segment) for segment in plan.segments]
        ('gram', 'in', [3, 2])
    """

    fan_in: int
    fan_out: int
    segments: Segments
    compute_dtype: str
    panels: int = 1
    split: int = 0
    leading: "Leading | None" = None
    loop: Loop = "none"
    reason: str = ""

    @property
    def method(self) -> str:
        """ "standard" if every step takes its own Gram matrix, else "gram"."""
        return "gram" if any(len(s) > 1 for s in self.segments) else "standard"

    @property
    def side(self) -> Side:
        """The side whose Gram matrix is the smaller one."""
        return short_side(self.fan_in, self.fan_out)

    @property
    def steps(self) -> int:
        """Number of Newton-Schulz steps."""
        return sum(len(segment) for segment in self.segments)

    @property
    def products(self) -> tuple[Product, ...]:
        """The matrix products of one matrix, in order."""
        short, long = sorted((self.fan_in, self.fan_out))
        first, dtype = self.leading, self.compute_dtype
        compression = first and products_of_compression(
            short, long, dtype, first.count, first.basis.products, first.values.products
        )
        steps = products_of_steps(
            short,
            long,
            dtype,
            self.segments,
            panels=self.panels,
            schatten=first is not None,
            split=self.split,
        )
        return (*(compression or ()), *steps)

    @functools.cached_property
    def flops(self) -> float:
        """Floating-point operations of the products of one matrix."""
        return sum(product.flops for product in self.products)

    @property
    def bytes_moved(self) -> int:
        """Bytes that the products of one matrix read and write."""
        return sum(product.bytes_moved for product in self.products)


@dataclasses.dataclass(frozen=True)
class Leading:
    """How leading singular values are compressed, see `keras_muon.compression`.

    Args:
        count: Number of directions in the basis.
        others: Number of directions beside it.
        signs: With which rows are mixed, see `keras_muon.leading.mixing_signs`.
        smallest_rest: What remains beside the basis counts as at least this.
        basis: The plan that makes the basis orthonormal.
        values: The plan that makes the leading values about equal.
    """

    count: int
    others: int
    signs: Signs = dataclasses.field(repr=False)
    smallest_rest: float
    basis: Plan
    values: Plan


def short_side(fan_in: int, fan_out: int) -> Side:
    """Return the side whose Gram matrix is the smaller one.

    Both sides give the same result, since p(X X^T) X = X p(X^T X).
    """
    return "in" if fan_in <= fan_out else "out"
