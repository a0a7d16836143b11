"""How the polar factors of one shape are computed, decided before any tensor exists.

Which polynomial is applied follows from the schedule and the extents. What else a plan
chooses changes its cost, not its result: on which side the Gram matrix is taken, which
steps share one, and in how many panels a symmetric product is computed.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from keras_muon.admissible import Triple
from keras_muon.leading import (
    BASIS_TRIPLES,
    GROUP,
    SMALLEST_REST,
    VALUE_TRIPLES,
    basis_size,
    mixing_signs,
)
from keras_muon.products import (
    Product,
    products_of_compression,
    products_of_steps,
)
from keras_muon.schedules import Schedule

Side = Literal["in", "out"]
Segments = tuple[tuple[Triple, ...], ...]

# How large matrices of one shape follow each other: not at all, in a loop that writes
# factors into the stack, or apart, without a stack.
Loop = Literal["none", "in_stack", "apart"]

# Steps that share a Gram matrix amplify its rounding by the square of their slope at
# zero. Up to a slope of 100 the float32 error stays that of single steps: 3e-6 beside
# 2e-6 on momenta of a GPT of width 256, where five steps at once (slope 493) have 1e-4.
STEEPEST_SEGMENT = {"float32": 100.0, "float64": 100.0}

# In bfloat16 five steps diverge so (an error of 21 was measured on a condition of
# 1000). After compression a slope of 10 changes the error by 0.003 on torch, and by
# 0.009 on XLA, which rounds more often.
STEEPEST_COMPRESSED_SEGMENT = STEEPEST_SEGMENT | {"bfloat16": 10.0}

# Below this extent a step is a matter of calls, not of operations.
SMALLEST_SHARED = 128

# From here on compression pays, and keeps the contract of quality on all spectra: at
# 256 rows it is 8 % worse than five Jordan steps where rows differ in scale.
SMALLEST_COMPRESSED = 384

# On a CPU a stack of small matrices saves calls, a stack of large ones only costs a
# copy: measured at 16 x 64 x 64 (torch 12 times faster) and 8 x 512 x 512 (slower).
LARGEST_STACKED_ON_CPU = 512 * 128

# From here on "auto" takes bfloat16 where it is fast; below, calls take the time.
SMALLEST_NARROW = 256

# In a stack, which is one call: torch takes 0.7 of float32's time at 64 x 64 x 64, 0.57
# at 24 x 128 x 128, and 1.7 at 40 x 32 x 32.
SMALLEST_NARROW_STACKED = 64

# Dtypes in which compression was measured; float16 has too small a range for it.
COMPRESSED_DTYPES = ("float32", "float64", "bfloat16")

# On a CPU a symmetric product of four column panels, of which the upper part is
# mirrored, takes 0.67 to 0.80 of the time at 768 rows and no less at 512.
SMALLEST_PANELLED = 768
PANELS = 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """The way to the polar factors of all matrices of one shape.

    Args:
        fan_in: Extent of a matrix's first axis.
        fan_out: Extent of its second axis.
        segments: The triples of all steps; those in one segment share a Gram matrix.
        compute_dtype: Dtype of the products.
        panels: Number of column panels of a symmetric product; 1 computes it whole.
        leading: How leading singular values are compressed first; None if they are not.
        loop: How the matrices of a stack follow each other.
        reason: Why this plan and no other.

    Example:
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
        )
        return (*(compression or ()), *steps)

    @property
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
    signs: tuple[int, ...] = dataclasses.field(repr=False)
    smallest_rest: float
    basis: Plan
    values: Plan


def plan_for(
    fan_in: int,
    fan_out: int,
    schedule: Schedule,
    compute_dtype: str,
    *,
    steps: int | None = None,
    shared: bool = True,
    loop: Loop = "none",
    panelled: bool = False,
) -> Plan:
    """Return the plan with the fewest operations that loses no precision.

    Args:
        fan_in: Extent of a matrix's first axis.
        fan_out: Extent of its second axis.
        schedule: The schedule.
        compute_dtype: Dtype of the products.
        steps: Number of steps; None is the schedule's. With a number, nothing is
            compressed.
        shared: Whether steps may share a Gram matrix.
        loop: How the matrices of a stack follow each other.
        panelled: Whether a large symmetric product is faster in panels: on a CPU, for
            single matrices.

    Returns:
        The plan.

    Example:
        >>> from keras_muon.schedules import SCHEDULES
        >>> plan_for(64, 64, SCHEDULES["cubic"], "float32").reason
        'fewer than 128 rows'
        >>> plan_for(768, 768, SCHEDULES["auto"], "float32").steps
        3
    """
    short, long = sorted((fan_in, fan_out))
    panels = PANELS if panelled and short >= SMALLEST_PANELLED else 1
    compress = steps is None and compresses(fan_in, fan_out, schedule, compute_dtype)
    triples = schedule.compressed if compress else schedule.take(steps)
    steepest = STEEPEST_COMPRESSED_SEGMENT if compress else STEEPEST_SEGMENT
    plan = _segmented(
        Plan(fan_in, fan_out, (), compute_dtype, panels, loop=loop),
        triples,
        steepest.get(compute_dtype, 0.0) if shared else None,
    )
    if not compress:
        return plan
    count, wide = basis_size(short), short_side(fan_in, fan_out) == "in"
    basis, values = (short, count), (count, long)
    leading = Leading(
        count,
        short - count,
        mixing_signs(short),
        SMALLEST_REST[compute_dtype],
        _small_plan(basis if wide else basis[::-1], BASIS_TRIPLES, compute_dtype),
        _small_plan(values if wide else values[::-1], VALUE_TRIPLES, compute_dtype),
    )
    reason = f"{count} leading values compressed; {plan.reason}"
    return dataclasses.replace(plan, leading=leading, reason=reason)


def compresses(
    fan_in: int, fan_out: int, schedule: Schedule, compute_dtype: str
) -> bool:
    """Whether a plan compresses the leading singular values of matrices.

    Example:
        >>> from keras_muon.schedules import SCHEDULES
        >>> compresses(768, 3072, SCHEDULES["auto"], "float16")
        False
    """
    short = min(fan_in, fan_out)
    large = short >= SMALLEST_COMPRESSED and short % GROUP == 0
    return bool(schedule.compressed) and large and compute_dtype in COMPRESSED_DTYPES


def short_side(fan_in: int, fan_out: int) -> Side:
    """Return the side whose Gram matrix is the smaller one.

    Both sides give the same result, since p(X X^T) X = X p(X^T X).
    """
    return "in" if fan_in <= fan_out else "out"


def _segmented(plan: Plan, triples: Sequence[Triple], steepest: float | None) -> Plan:
    """Cut the steps of a plan into those that share a Gram matrix."""
    short = min(plan.fan_in, plan.fan_out)
    alone = dataclasses.replace(plan, segments=tuple((t,) for t in triples))
    if steepest is None:
        return _because(alone, "a Gram matrix per step, as asked")
    if not steepest:
        return _because(alone, f"{plan.compute_dtype} needs a Gram matrix per step")
    if short < SMALLEST_SHARED:
        return _because(alone, f"fewer than {SMALLEST_SHARED} rows")
    sharing = dataclasses.replace(plan, segments=_gentle_segments(triples, steepest))
    if sharing.flops < alone.flops:
        saved = 1.0 - sharing.flops / alone.flops
        return _because(sharing, f"sharing Gram matrices saves {saved:.0%}")
    return _because(alone, "too near to square to share Gram matrices")


def _small_plan(fans: tuple[int, int], triples: Sequence[Triple], dtype: str) -> Plan:
    return _segmented(Plan(*fans, (), dtype), triples, STEEPEST_SEGMENT.get(dtype, 0.0))


def _because(plan: Plan, reason: str) -> Plan:
    return dataclasses.replace(plan, reason=reason)


def _gentle_segments(triples: Sequence[Triple], steepest: float) -> Segments:
    """Cut the steps where their common slope at zero would pass the limit."""
    segments: list[list[Triple]] = []
    slope = 1.0
    for triple in triples:
        slope *= triple[0]
        if not segments or slope > steepest:
            segments.append([])
            slope = triple[0]
        segments[-1].append(triple)
    return tuple(map(tuple, segments))
