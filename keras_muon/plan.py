"""How the polar factors of one shape are computed, decided before any tensor exists.

The iteration is fixed by the schedule; what a plan chooses changes its cost, not its
result: on which side the Gram matrix is taken, which steps share one, and in how many
panels a symmetric product is computed.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from keras_muon.admissible import Triple

Side = Literal["in", "out"]
Segments = tuple[tuple[Triple, ...], ...]

# Steps that share a Gram matrix amplify its rounding by the square of their slope at
# zero. Up to this slope the float32 error stays that of single steps: 3e-6 beside 2e-6
# on momenta of a GPT of width 256, where five steps at once (slope 493) have 1e-4.
STEEPEST_SEGMENT = 100.0

# Dtypes whose rounding a shared Gram matrix survives; in bfloat16 the iteration then
# diverges (a relative error of 21 was measured on a condition of 1000).
EXACT_DTYPES = ("float32", "float64")

# Below this extent a step is a matter of calls, not of operations.
SMALLEST_SHARED = 128

# On a CPU a symmetric product of four column panels, of which the upper part is
# mirrored, takes 0.70 to 0.80 of the time at 768 rows and no less at 512.
SMALLEST_PANELLED = 768
PANELS = 4


class Product(NamedTuple):
    """One matrix product of a plan.

    Args:
        rows: Rows of the result.
        inner: Extent that is summed over.
        columns: Columns of the result.
        share: Share of the product that is computed, 1 unless it is symmetric.
    """

    rows: int
    inner: int
    columns: int
    share: float = 1.0

    @property
    def flops(self) -> float:
        """Floating-point operations; a multiply-add is two."""
        return 2.0 * self.rows * self.inner * self.columns * self.share


@dataclasses.dataclass(frozen=True)
class Plan:
    """The way to the polar factors of all matrices of one shape.

    Args:
        fan_in: Extent of a matrix's first axis.
        fan_out: Extent of its second axis.
        segments: The triples of all steps; those in one segment share a Gram matrix.
        compute_dtype: Dtype of the products.
        panels: Number of column panels of a symmetric product; 1 computes it whole.
        reason: Why this plan and no other.

    Example:
        >>> from keras_muon.schedules import SCHEDULES
        >>> plan = plan_for(768, 3072, SCHEDULES["you"].take(), "float32")
        >>> plan.method, plan.side, [len(segment) for segment in plan.segments]
        ('gram', 'in', [3, 2])
    """

    fan_in: int
    fan_out: int
    segments: Segments
    compute_dtype: str
    panels: int = 1
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
        return tuple(_products(self))

    @property
    def flops(self) -> float:
        """Floating-point operations of the products of one matrix."""
        return sum(product.flops for product in self.products)


def plan_for(
    fan_in: int,
    fan_out: int,
    triples: tuple[Triple, ...],
    compute_dtype: str,
    *,
    panelled: bool = False,
) -> Plan:
    """Return the plan with the fewest operations that loses no precision.

    Args:
        fan_in: Extent of a matrix's first axis.
        fan_out: Extent of its second axis.
        triples: One (a, b, c) per step, from `Schedule.take`.
        compute_dtype: Dtype of the products.
        panelled: Whether a large symmetric product is faster in panels: on a CPU, for
            single matrices.

    Returns:
        The plan.

    Example:
        >>> plan_for(64, 64, ((1.5, -0.5, 0.0),), "float32").reason
        'fewer than 128 rows'
    """
    short = min(fan_in, fan_out)
    panels = PANELS if panelled and short >= SMALLEST_PANELLED else 1
    alone = Plan(fan_in, fan_out, tuple((t,) for t in triples), compute_dtype, panels)
    if compute_dtype not in EXACT_DTYPES:
        return _because(alone, f"{compute_dtype} needs a Gram matrix per step")
    if short < SMALLEST_SHARED:
        return _because(alone, f"fewer than {SMALLEST_SHARED} rows")
    shared = dataclasses.replace(alone, segments=_gentle_segments(triples))
    if shared.flops < alone.flops:
        saved = 1.0 - shared.flops / alone.flops
        return _because(shared, f"sharing Gram matrices saves {saved:.0%}")
    return _because(alone, "too near to square to share Gram matrices")


def short_side(fan_in: int, fan_out: int) -> Side:
    """Return the side whose Gram matrix is the smaller one.

    Both sides give the same result, since p(X X^T) X = X p(X^T X).
    """
    return "in" if fan_in <= fan_out else "out"


def _because(plan: Plan, reason: str) -> Plan:
    return dataclasses.replace(plan, reason=reason)


def _gentle_segments(triples: Sequence[Triple]) -> Segments:
    """Cut the steps where their common slope at zero would pass the limit."""
    segments: list[list[Triple]] = []
    slope = 1.0
    for triple in triples:
        slope *= triple[0]
        if not segments or slope > STEEPEST_SEGMENT:
            segments.append([])
            slope = triple[0]
        segments[-1].append(triple)
    return tuple(map(tuple, segments))


def _products(plan: Plan) -> Iterator[Product]:
    """What `keras_muon.newton_schulz.segment` multiplies."""
    short, long = sorted((plan.fan_in, plan.fan_out))
    share = (plan.panels + 1) / (2 * plan.panels)
    for segment in plan.segments:
        yield Product(short, long, short, share)
        for position, (_, _, c) in enumerate(segment):
            moves_on = position + 1 < len(segment)
            count = bool(c) + (position > 0) + 2 * moves_on
            yield from [Product(short, short, short, share)] * count
        yield Product(short, short, long)
