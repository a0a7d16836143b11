"""The plan of a shape: the fewest operations that lose no precision.

Which polynomial is applied follows from the schedule and the extents. All limits from
which on something pays, or keeps the contract of quality, stand here.
"""

import dataclasses
from collections.abc import Sequence

from keras_muon.admissible import Triple
from keras_muon.leading import (
    BASIS_TRIPLES,
    GROUP,
    SMALLEST_REST,
    VALUE_TRIPLES,
    basis_size,
    mixing_signs,
)
from keras_muon.plan import Leading, Loop, Plan, Segments, short_side
from keras_muon.schedules import Schedule
from keras_muon.split_choice import split_segments

# Steps that share a Gram matrix amplify its rounding by the square of their slope at
# zero. Up to a slope of 100 the float32 error stays that of single steps: 3e-6 beside
# 2e-6 on momenta of a GPT of width 256, where five steps at once (slope 493) have 1e-4.
STEEPEST_SEGMENT = {"float32": 100.0, "float64": 100.0}

# In bfloat16 five steps diverge so (an error of 21 was measured on a condition of
# 1000). After compression a slope of 10 changes the error by 0.003 on torch, and by
# 0.009 on XLA, which rounds more often.
STEEPEST_COMPRESSED_SEGMENT = STEEPEST_SEGMENT | {"bfloat16": 10.0}

# From here on all three steps, of slope 62, may share a Gram matrix in bfloat16, where
# alpha C + beta A B is rounded once. That adds 0.01 to the error of real updates, and
# five Jordan steps lose more with every row: where rows differ in scale it is 1.04 of
# theirs from here on, 1.05 at 544 rows and 1.07 at 512 and 384. Rounded twice, as on
# TensorFlow, a matrix of rank 1 has 1.2 times the error that is allowed.
SMALLEST_STEEP = 576

# Below this extent a step is a matter of calls, not of operations.
SMALLEST_SHARED = 128

# From here on compression pays, and keeps the contract of quality on all spectra: at
# 256 rows it is 8 % worse than five Jordan steps where rows differ in scale.
SMALLEST_COMPRESSED = 384

# On a CPU a stack of small matrices saves calls, a stack of large ones only costs a
# copy: measured at 16 x 64 x 64 (torch 12 times faster) and 8 x 512 x 512 (slower).
LARGEST_STACKED_ON_CPU = 512 * 128

# TensorFlow without XLA multiplies a stack slowly, and fuses nothing around it. From
# 64 x 64 on matrices are faster in turn, with oneDNN and without; smaller ones are not.
LARGEST_STACKED_WITHOUT_XLA = 64 * 64 - 1

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


def plan_for(
    fan_in: int,
    fan_out: int,
    schedule: Schedule,
    compute_dtype: str,
    *,
    steps: int | None = None,
    shared: bool = True,
    split: bool = False,
    loop: Loop = "none",
    panelled: bool = False,
    fused: bool = False,
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
        split: Whether to split steep first products, see `keras_muon.split_products`.
            Training does not need their digits.
        loop: How the matrices of a stack follow each other.
        panelled: Whether a large symmetric product is faster in panels: on a CPU, for
            single matrices.
        fused: Whether alpha C + beta A B is rounded once in a narrow dtype, by one
            kernel.

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
    if compress and fused and short >= SMALLEST_STEEP:
        steepest = steepest | {"bfloat16": steepest["float32"]}
    plan = _segmented(
        Plan(fan_in, fan_out, (), compute_dtype, panels, loop=loop),
        triples,
        steepest.get(compute_dtype, 0.0) if shared else None,
    )
    if not compress:
        if not split:
            return plan
        count = split_segments(short, schedule, compute_dtype, plan.segments)
        return dataclasses.replace(plan, split=count)
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


def is_small(fan_in: int, fan_out: int) -> bool:
    """Whether on a CPU a stack of matrices is faster than one after the other.

    Example:
        >>> is_small(128, 512), is_small(512, 129)
        (True, False)
    """
    return fan_in * fan_out <= LARGEST_STACKED_ON_CPU


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
