"""Plans: which steps share a Gram matrix, and what operations and bytes that takes."""

import inspect

import numpy as np
import pytest
from counting_carrier import CountingOps, Extents

from keras_muon import SCHEDULES, Schedule
from keras_muon.compression import polar_factors
from keras_muon.matrix_ops import MatrixOps
from keras_muon.plan_choice import STEEPEST_SEGMENT, compresses, plan_for

YOU = SCHEDULES["you"]
CUBIC = (1.5, -0.5, 0.0)

# Two cubic steps after the compression, which know R R without needing it.
CUBIC_AFTER = Schedule(YOU.coefficients, name="cubic_after", compressed=(CUBIC, CUBIC))
COUNTED = [*SCHEDULES.values(), CUBIC_AFTER]


def test_the_counting_carrier_has_every_verb():
    """A verb that the protocol gains is missed here, before it is missed in a sum."""
    verbs = {name for name in vars(MatrixOps) if not name.startswith("_")}
    assert verbs - set(dir(CountingOps)) == set()
    for name in verbs:
        asked = inspect.signature(getattr(MatrixOps, name)).parameters
        assert (
            asked.keys()
            == inspect.signature(getattr(CountingOps, name)).parameters.keys()
        ), name


@pytest.mark.parametrize("schedule", COUNTED, ids=lambda s: s.name)
@pytest.mark.parametrize(
    "fans",
    [
        *[(128, 128), (160, 256), (256, 160), (128, 512), (1024, 128), (8, 64)],
        *[(384, 384), (384, 1536), (1536, 400), (2048, 384)],
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("dtype", "split"), [("float32", False), ("float32", True), ("bfloat16", True)]
)
def test_a_plan_counts_what_the_iteration_multiplies(schedule, fans, dtype, split):
    """The sum over a plan's products is what a carrier is asked for."""
    plan = plan_for(*fans, schedule, dtype, split=split)
    ops = CountingOps()
    assert polar_factors(Extents(fans), plan, ops) == fans
    assert plan.flops == ops.flops
    assert plan.bytes_moved == ops.bytes_moved
    compressed = bool(schedule.compressed) and min(fans) >= 384
    assert compressed == (plan.leading is not None)
    assert plan.steps == len(schedule.compressed if compressed else schedule.take())


def test_a_plan_counts_panels_as_they_are_asked_for():
    """Five eighths of every symmetric product; small ones are never in panels."""
    plan = plan_for(768, 1536, YOU, "float32", panelled=True)
    ops = CountingOps(share=5 / 8)
    polar_factors(Extents((768, 1536)), plan, ops)
    assert plan.flops == ops.flops


@pytest.mark.parametrize("left_out", ["mixed", "product", "squared", "symmetric"])
def test_the_count_notices_a_kind_of_product(left_out):
    """Each verb's operations are a part of the sum that can be missed."""
    plan = plan_for(384, 1536, SCHEDULES["auto"], "float32")
    ops = CountingOps()
    counting = getattr(ops, left_out)

    def uncounted(*arguments, **others):
        before = ops.flops, ops.bytes_moved
        result = counting(*arguments, **others)
        ops.flops, ops.bytes_moved = before
        return result

    setattr(ops, left_out, uncounted)
    polar_factors(Extents((384, 1536)), plan, ops)
    assert plan.flops > ops.flops
    assert plan.bytes_moved > ops.bytes_moved


@pytest.mark.parametrize(
    ("fans", "schedule", "dtype", "steps", "expected"),
    [
        ((384, 384), "auto", "float32", None, True),
        ((400, 4096), "auto", "float64", None, True),
        ((4096, 400), "auto", "bfloat16", None, True),
        ((383, 4096), "auto", "float32", None, False),
        ((368, 4096), "auto", "float32", None, False),
        ((392, 4096), "auto", "float32", None, False),
        ((400, 4096), "auto", "float16", None, False),
        ((400, 4096), "auto", "float32", 5, False),
        ((400, 4096), "auto", "float32", 3, False),
        *(
            ((400, 4096), name, "float32", None, False)
            for name in SCHEDULES
            if name != "auto"
        ),
    ],
    ids=str,
)
def test_what_is_compressed(fans, schedule, dtype, steps, expected):
    """From 384 rows on that 16 divides, by `auto`, where no steps are asked for."""
    plan = plan_for(*fans, SCHEDULES[schedule], dtype, steps=steps)
    assert (plan.leading is not None) == expected
    assert plan.reason.startswith("75 leading values compressed; ") == (
        expected and min(fans) == 400
    )
    if steps is None:
        assert compresses(*fans, SCHEDULES[schedule], dtype) == expected
        taken = SCHEDULES[schedule].take()
    else:
        taken = SCHEDULES[schedule].take(steps)
    if not expected:
        assert sum(plan.segments, ()) == taken


def test_operations_of_the_published_counts():
    """In units of one product of the short side: 45 and 30 at 1:4, as Dao-AILab count.

    Source: github.com/Dao-AILab/gram-newton-schulz: 10 r + 5 and, with one restart,
    4 r + 14 for five steps of an aspect ratio r.
    """
    unit = 2 * 256**3
    alone = plan_for(256, 1024, YOU, "bfloat16")
    shared = plan_for(256, 1024, YOU, "float32")
    assert (alone.flops / unit, shared.flops / unit) == (45.0, 30.0)
    assert (alone.method, shared.method) == ("standard", "gram")


@pytest.mark.parametrize(
    ("fans", "dtype", "method"),
    [
        ((512, 512), "float32", "standard"),
        ((512, 700), "float32", "standard"),
        ((512, 1024), "float32", "gram"),
        ((1024, 512), "float64", "gram"),
        ((1024, 512), "bfloat16", "standard"),
        ((1024, 512), "float16", "standard"),
        ((64, 4096), "float32", "standard"),
    ],
)
def test_steps_share_where_it_saves_and_is_exact(fans, dtype, method):
    """Not near the square, not in 16 bits, not on small matrices."""
    plan = plan_for(*fans, YOU, dtype)
    assert plan.method == method
    assert plan.reason


@pytest.mark.parametrize("name", SCHEDULES)
def test_no_segment_is_too_steep(name):
    """The slope of the steps that share a Gram matrix stays below the limit."""
    plan = plan_for(256, 2048, SCHEDULES[name], "float32")
    assert sum(plan.segments, ()) == SCHEDULES[name].take()
    for segment in plan.segments:
        slope = np.prod([a for a, _, _ in segment])
        assert slope <= STEEPEST_SEGMENT["float32"] or len(segment) == 1


def test_many_steep_steps_are_cut_often():
    """Ten Jordan steps have a slope of 2e5; none of their parts passes 100."""
    plan = plan_for(256, 2048, SCHEDULES["jordan"], "float32", steps=10)
    assert [len(s) for s in plan.segments] == [3, 3, 3, 1]


@pytest.mark.parametrize(
    ("dtype", "lengths"), [("float32", [3]), ("float64", [3]), ("bfloat16", [1, 2])]
)
def test_after_compression_steps_share_in_bfloat16_too(dtype, lengths):
    """Slopes of 7.8, 3.4 and 2.4: 62 is gentle in float32, 8.0 in bfloat16."""
    plan = plan_for(512, 2048, SCHEDULES["auto"], dtype)
    assert [len(s) for s in plan.segments] == lengths


@pytest.mark.parametrize(
    ("rows", "fused", "lengths"),
    [(576, True, [3]), (576, False, [1, 2]), (560, True, [1, 2])],
)
def test_in_bfloat16_all_share_where_rounded_once(rows, fused, lengths):
    """A slope of 62, from 576 rows on; below and elsewhere it breaks the contract."""
    plan = plan_for(rows, 2 * rows, SCHEDULES["auto"], "bfloat16", fused=fused)
    assert [len(s) for s in plan.segments] == lengths


def test_without_compression_no_steps_share_in_bfloat16():
    """They diverge, however the products are rounded."""
    plan = plan_for(768, 3072, YOU, "bfloat16", fused=True)
    assert [len(s) for s in plan.segments] == [1] * 5


def test_asked_for_a_gram_matrix_per_step_a_plan_has_one():
    """Also where sharing would save operations."""
    plan = plan_for(256, 2048, YOU, "float32", shared=False)
    assert [len(s) for s in plan.segments] == [1] * 5
    assert plan.reason == "a Gram matrix per step, as asked"


def test_panels_compute_a_share_of_symmetric_products():
    """Four panels compute five eighths of a square; the last product is whole."""
    plain = plan_for(1024, 1024, YOU, "float32")
    panelled = plan_for(1024, 1024, YOU, "float32", panelled=True)
    assert (plain.panels, panelled.panels) == (1, 4)
    assert panelled.flops / plain.flops == pytest.approx((2 * 5 / 8 + 1) / 3)
    assert plan_for(512, 512, YOU, "float32", panelled=True).panels == 1
