"""Plans: which steps share a Gram matrix, and how many operations that takes."""

import numpy as np
import pytest

from keras_muon import SCHEDULES
from keras_muon.newton_schulz import newton_schulz
from keras_muon.plan import STEEPEST_SEGMENT, plan_for

YOU = SCHEDULES["you"].take()


class CountingOps:
    """A carrier of shapes alone, which adds up the operations of every product."""

    def __init__(self):
        self.flops = 0

    def multiplied(self, a, b):
        self.flops += 2 * a[0] * a[1] * b[1]
        return (a[0], b[1])

    def gram(self, x, side):
        turned = x[::-1]
        return self.multiplied(*((x, turned) if side == "in" else (turned, x)))

    def fused(self, alpha, c, beta, a, b):
        return self.multiplied(a, b)

    symmetric = fused

    def combined(self, alpha, x, beta, y):
        return x

    def scaled(self, alpha, x):
        return x

    def divided(self, x, y, at_least):
        return x

    def largest_entry(self, x):
        return x

    def frobenius_norm(self, x):
        return x

    def cast(self, x, dtype):
        return x


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    "fans", [(128, 128), (160, 256), (256, 160), (128, 512), (1024, 128), (8, 64)]
)
def test_a_plan_counts_what_the_iteration_multiplies(name, fans):
    """The sum over a plan's products is what a carrier is asked for."""
    plan = plan_for(*fans, SCHEDULES[name].take(), "float32")
    ops = CountingOps()
    newton_schulz(fans, plan, ops)
    assert plan.flops == ops.flops
    assert plan.steps == len(SCHEDULES[name].take())


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
    triples = SCHEDULES[name].take()
    plan = plan_for(256, 2048, triples, "float32")
    assert sum(plan.segments, ()) == triples
    for segment in plan.segments:
        slope = np.prod([a for a, _, _ in segment])
        assert slope <= STEEPEST_SEGMENT or len(segment) == 1


def test_many_steep_steps_are_cut_often():
    """Ten Jordan steps have a slope of 2e5; none of their parts passes 100."""
    triples = SCHEDULES["jordan"].take(10)
    lengths = [len(s) for s in plan_for(256, 2048, triples, "float32").segments]
    assert lengths == [3, 3, 3, 1]


def test_panels_compute_a_share_of_symmetric_products():
    """Four panels compute five eighths of a square; the last product is whole."""
    plain = plan_for(1024, 1024, YOU, "float32")
    panelled = plan_for(1024, 1024, YOU, "float32", panelled=True)
    assert (plain.panels, panelled.panels) == (1, 4)
    assert panelled.flops / plain.flops == pytest.approx((2 * 5 / 8 + 1) / 3)
    assert plan_for(512, 512, YOU, "float32", panelled=True).panels == 1
