"""Schedules: the published numbers, the tail, the safety rule, JSON, names."""

import dataclasses

import numpy as np
import pytest

from keras_muon import SCHEDULES, Schedule, minimax_schedule

# Measured for the landscape study (research/muon-landscape.md, section 2, November
# 2026) in NumPy float64, independently of this package and before it was written:
# range of the whole schedule on [1e-3, 1], on [1e-2, 1], and slope at 0.
PUBLISHED = {
    "jordan": ((0.471, 1.202), (0.682, 1.134), 485),
    "you": ((0.475, 1.145), (0.978, 1.032), 493),
    "polar_express": ((0.846, 1.124), (0.870, 1.124), 976),
    "cubic": ((0.058, 1.000), (0.529, 1.000), 58),
}

# The same section, input beyond which the output is above 2 or below 0.
BLOW_UP = {"jordan": 1.264, "you": 1.325, "polar_express": 1.0109, "cubic": 3**0.5}

# NVIDIA-NeMo/Emerging-Optimizers, August 2026: Polar Express divided by the safety
# factor 1.01 in all rows but the last, cut to four decimals.
NVIDIA_POLAR_EXPRESS = (
    (8.2051, -22.9019, 16.4607),
    (4.0664, -2.8612, 0.5184),
    (3.9096, -2.8234, 0.5250),
    (3.2856, -2.4153, 0.4853),
    (2.2779, -1.6198, 0.3985),
    (1.8726, -1.2307, 0.3585),
    (1.8564, -1.2132, 0.3568),
    (1.875, -1.25, 0.375),
)

# Jordan et al. 2024 and You 2025, as in KellerJordan/Muon and modded-nanogpt.
JORDAN = ((3.4445, -4.7750, 2.0315),) * 5
YOU = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
CUBIC = (1.5, -0.5, 0.0)


def on_scalars(triples, values):
    """The composition of odd polynomials, by Horner's rule in float64."""
    for a, b, c in triples:
        square = values * values
        values = values * (a + square * (b + square * c))
    return values


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("case", [0, 1], ids=["from_1e-3", "from_1e-2"])
def test_range_is_the_measured_one(name, case):
    """The default steps map [1e-3, 1] and [1e-2, 1] onto the published ranges."""
    lowest = (1e-3, 1e-2)[case]
    values = on_scalars(SCHEDULES[name].take(), np.geomspace(lowest, 1.0, 100_001))
    # Largest difference seen 4.7e-4, half of the last printed digit; one step fewer
    # moves the minimum of each by 0.019 or more, see the next test.
    assert (values.min(), values.max()) == pytest.approx(
        PUBLISHED[name][case], abs=5.1e-4
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_range_with_one_step_fewer_is_another(name):
    """The comparison above notices a missing step."""
    fewer = SCHEDULES[name].take(SCHEDULES[name].steps - 1)
    minimum = on_scalars(fewer, np.geomspace(1e-3, 1.0, 100_001)).min()
    assert abs(minimum - PUBLISHED[name][0][0]) > 0.01


@pytest.mark.parametrize("name", PUBLISHED)
def test_slope_at_zero_is_the_measured_one(name):
    """Tiny singular values grow by the published factor."""
    slope = on_scalars(SCHEDULES[name].take(), np.float64(1e-9)) / 1e-9
    # Half of the last printed digit; one step fewer is off by a factor of 1.5 to 3.4.
    assert slope == pytest.approx(PUBLISHED[name][2], abs=0.5)


@pytest.mark.parametrize("name", BLOW_UP)
def test_overshoot_that_is_tolerated_is_the_measured_one(name):
    """Inputs up to the published limit stay within (0, 2]; beyond it they do not."""
    limit = BLOW_UP[name]
    inside = on_scalars(SCHEDULES[name].take(), np.linspace(1.0, limit - 1e-3, 10_001))
    assert 0 < inside.min() < inside.max() <= 2
    beyond = on_scalars(SCHEDULES[name].take(), np.float64(limit + 1e-3))
    assert not 0 < beyond <= 2


def test_jordan_and_you_are_the_published_triples():
    """Their numbers are used as they were printed: no safety factor."""
    assert SCHEDULES["jordan"].take() == JORDAN
    assert SCHEDULES["you"].take() == YOU


def test_auto_is_you_and_minimax_after_compression():
    """Small matrices get You's five steps, large ones the three minimax ones."""
    auto = SCHEDULES["auto"]
    assert (auto.take(), auto.steps, auto.tail) == (YOU, 5, "refuse")
    # The same operations in the same order: no difference seen. A lower bound of
    # 0.016 instead is off by 0.1.
    expected = np.array(minimax_schedule(0.015, 3).take())
    np.testing.assert_allclose(auto.compressed, expected, rtol=1e-12)
    other = np.array(minimax_schedule(0.016, 3).take())
    assert np.abs(other - expected).max() > 0.05


def test_only_auto_compresses():
    """A schedule that is named is applied as it was published."""
    assert [name for name, s in SCHEDULES.items() if s.compressed] == ["auto"]


def test_polar_express_is_the_table_of_nvidia():
    """The safety rule reproduces another project's division, row by row."""
    rows = np.array(SCHEDULES["polar_express"].take(8))
    # Largest difference seen 6.1e-5, below the last printed digit; a safety factor
    # of 1.011 is off by 0.08, and one that divides the last row too by 0.037.
    np.testing.assert_allclose(rows, NVIDIA_POLAR_EXPRESS, atol=1e-4, rtol=0)
    other = dataclasses.replace(SCHEDULES["polar_express"], safety=1.011)
    assert np.abs(np.array(other.take(8)) - NVIDIA_POLAR_EXPRESS).max() > 0.05


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_shipped_schedule_states_its_source(name):
    """The table's key is the name, and somebody can look the numbers up."""
    assert SCHEDULES[name].name == name
    assert SCHEDULES[name].source


@pytest.mark.parametrize("name", ["cubic", "quintic"])
def test_classic_schedules_converge_to_one(name):
    """Many steps of the classics reach the polar factor itself."""
    values = on_scalars(SCHEDULES[name].take(40), np.geomspace(1e-3, 1.0, 101))
    # Largest error seen 1.1e-16; their default of 10 steps is off by 0.94 and 0.5.
    np.testing.assert_allclose(values, 1.0, atol=1e-14)


def test_take_repeats_the_last_triple_without_safety():
    """Beyond the table comes the last row as it stands, all others are divided."""
    schedule = Schedule(((2.0, -1.5, 0.5), CUBIC), tail="repeat", safety=1.25)
    first = (2.0 / 1.25, -1.5 / 1.25**3, 0.5 / 1.25**5)
    assert schedule.take() == (first, CUBIC)
    assert schedule.take(1) == (first,)
    assert schedule.take(4) == (first, CUBIC, CUBIC, CUBIC)


@pytest.mark.parametrize("safety", [1.01, 1.05, 1.5], ids=str)
def test_safety_is_a_division_of_the_input(safety):
    """A divided triple at s is the given triple at s / safety."""
    schedule = Schedule((YOU[0], CUBIC), safety=safety)
    s = np.linspace(0.01, 1.0, 101)
    # Largest error seen 5e-15; without the division it is off by 0.028 to 0.95.
    np.testing.assert_allclose(
        on_scalars(schedule.take(1), s), on_scalars(YOU[:1], s / safety), rtol=1e-13
    )
    assert np.abs(on_scalars(schedule.take(1), s) - on_scalars(YOU[:1], s)).max() > 0.02


def test_take_refuses_to_go_beyond_a_schedule_that_ends():
    """A tail that refuses says how long the schedule is, and what else there is."""
    assert len(SCHEDULES["you"].take(3)) == 3
    with pytest.raises(ValueError, match=r"'you' has 5 steps; received `steps`: 6"):
        SCHEDULES["you"].take(6)
    with pytest.raises(ValueError, match="has 1 steps; received `steps`: 2"):
        Schedule((CUBIC,), steps=2)


@pytest.mark.parametrize("steps", [0, -1])
def test_take_refuses_less_than_one_step(steps):
    """Zero steps would return the gradient divided by its norm."""
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        SCHEDULES["you"].take(steps)


def test_steps_default_to_the_number_of_triples():
    """A bare list of triples is taken whole; a number of steps overrules it."""
    assert Schedule((CUBIC, CUBIC, CUBIC)).steps == 3
    assert len(Schedule((CUBIC,), steps=4, tail="repeat").take()) == 4
    assert len(Schedule((CUBIC, CUBIC, CUBIC), steps=2).take()) == 2
