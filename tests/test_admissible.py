"""The validator: which published sets are refused, and that it misses none."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from keras_muon import SCHEDULES, Schedule, minimax_schedule
from keras_muon.admissible import LARGEST_VALUE, OVERSHOOT, check_range

# Sets in circulation that reverse or explode some update; numbers and behaviour from
# research/muon-landscape.md, section 2. `aol`: NVIDIA Emerging-Optimizers, August
# 2026, p(1) = -0.994. `raw_polar_express` and `cans` leave (0, 2] from s > 1.0000,
# `cubic5` (arXiv 2606.00371) from s > 1.0035: rounding alone reaches that.
UNFIT = {
    "aol": (
        (4.0098, -7.0585, 2.4635),
        (3.4585, -5.5479, 2.5959),
        (2.7573, -3.2939, 1.4254),
        (2.7215, -3.0494, 1.3169),
    ),
    "raw_polar_express": SCHEDULES["polar_express"].coefficients,
    "raw_polar_express_5": SCHEDULES["polar_express"].coefficients[:5],
    "cans": (
        (8.4703, -25.1081, 18.6293),
        (4.1828, -3.1087, 0.5806),
        (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    ),
    "cubic5": (
        (3.3656576, -3.3420992, 0.0),
        (2.5744352, -1.4957376, 0.0),
        (2.5368962, -1.4312570, 0.0),
        (2.4418906, -1.2764040, 0.0),
        (2.2230472, -0.9630650, 0.0),
    ),
    "reversed": ((-1.5, 0.5, 0.0),),
    "zero": ((0.0, 0.0, 0.0),),
    "explodes": ((3.0, 0.0, 0.0),),
    "dips_inside": ((4.0, -9.0, 5.0),),
    "without_bounds": ((1e200, 1e200, 1e200),),
}

# Sets in circulation that tolerate an overshoot of 4 % or more, same section.
FIT = {
    "deepseek": ((3.4445, -4.7750, 2.0315),) * 8 + ((2.0, -1.5, 0.5),) * 2,
    "early_turbo": (
        (4.6051, -9.6552, 5.6769),
        (4.7505, -6.0861, 2.1790),
        (2.7763, -2.3190, 0.5523),
        (2.4231, -2.2861, 0.8193),
    ),
    "final_turbo": SCHEDULES["you"].coefficients[1:],
    "identity": ((1.0, 0.0, 0.0),),
}


@pytest.mark.parametrize("name", UNFIT)
def test_unfit_sets_are_refused(name):
    """No schedule can be made of a set that turns an update around or explodes."""
    with pytest.raises(ValueError, match=f"Schedule '{name}' (changes sign|blows up)"):
        Schedule(UNFIT[name], name=name)


@pytest.mark.parametrize("name", [n for n in UNFIT if n != "without_bounds"])
def test_unfit_sets_are_unfit(name):
    """The refusals above are right: scalars up to 1.005 leave (0, 2]."""
    smallest, largest = by_brute_force(UNFIT[name])
    assert smallest <= 0 or largest > LARGEST_VALUE


@pytest.mark.parametrize("name", FIT)
def test_fit_sets_are_accepted(name):
    """The validator is no wall: sets with a margin pass."""
    assert Schedule(FIT[name]).take() == FIT[name]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 30])
def test_shipped_schedules_are_fit_for_every_number_of_steps(name, steps):
    """Whatever `ns_steps` says, what is shipped stays within (0, 2]."""
    schedule = SCHEDULES[name]
    if schedule.tail == "refuse":
        steps = min(steps, len(schedule.coefficients))
    check_range(name, schedule.take(steps))
    smallest, largest = by_brute_force(schedule.take(steps))
    assert smallest > 0
    assert largest <= LARGEST_VALUE


def test_safety_makes_polar_express_fit():
    """The way out that the message names is one: safety 1.01."""
    with pytest.raises(ValueError, match=r"Raise `safety` \(1\.01 is common\)"):
        Schedule(UNFIT["raw_polar_express"])
    assert Schedule(UNFIT["raw_polar_express"], safety=1.01).safety == 1.01


def test_the_message_names_the_step():
    """A bad triple is found behind good ones, and counted from 1."""
    good, bad = (1.5, -0.5, 0.0), (1.0, -1.2, 0.0)
    with pytest.raises(ValueError, match=r"step 3, \(1\.0, -1\.2, 0\.0\), is not pos"):
        Schedule((good, good, bad))


def test_triples_beyond_the_default_steps_are_checked():
    """A bad triple that only `take` would reach is refused at once."""
    with pytest.raises(ValueError, match="step 2"):
        Schedule(((1.5, -0.5, 0.0), (1.0, -1.2, 0.0)), steps=1)


@pytest.mark.parametrize("triple", [(1.2, 0.0, 0.0), (2.65, -1.0, 0.0)], ids=str)
def test_a_repeated_tail_is_checked_as_far_as_it_is_taken(triple):
    """One step may be harmless and thirty of the same not."""
    assert is_accepted([triple])
    smallest, largest = by_brute_force((triple,) * 30)
    assert smallest <= 0 or largest > LARGEST_VALUE
    with pytest.raises(ValueError, match=r"changes sign|blows up"):
        Schedule((triple,), tail="repeat").take(30)


def by_brute_force(triples):
    """Smallest output / input and largest output of any step, on a dense grid."""
    grid = np.concatenate(
        [np.geomspace(1e-9, 1e-3, 200), np.linspace(1e-3, OVERSHOOT, 20_001)]
    )
    values, smallest, largest = grid, np.inf, -np.inf
    for a, b, c in triples:
        square = values * values
        values = values * (a + square * (b + square * c))
        smallest = min(smallest, (values / grid).min())
        largest = max(largest, values.max())
        values = np.clip(values, -9.0, 9.0)  # refused already; keeps powers finite
    return smallest, largest


def is_accepted(triples):
    try:
        check_range("drawn", tuple(triples))
    except ValueError:
        return False
    return True


# Around the published triples, where both verdicts are common: see the counts below.
DRAWN = st.lists(
    st.tuples(st.floats(0.5, 4.5), st.floats(-7.0, 0.5), st.floats(-0.5, 4.0)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(DRAWN)
@example([*UNFIT["aol"]])
@example([*UNFIT["cans"]])
@example([*FIT["early_turbo"]])
@example([(2.0, -1.0, 1e-38), (1.0, -1.0, 0.0)])
def test_verdict_agrees_with_brute_force(triples):
    """The closed form and a grid of 20,000 values agree, borders left aside."""
    smallest, largest = by_brute_force(triples)
    # An extremum between two points of the grid is missed by less than this.
    assume(abs(smallest) > 0.01 and abs(largest - LARGEST_VALUE) > 0.01)
    assert is_accepted(triples) == (smallest > 0 and largest <= LARGEST_VALUE)


def test_both_verdicts_are_common_around_the_published_triples(rng):
    """The comparison above would notice a validator that always says the same."""
    low, high = np.array([[0.5, -7.0, -0.5], [4.5, 0.5, 4.0]])
    drawn = [[tuple(rng.uniform(low, high))] for _ in range(200)]
    accepted = sum(map(is_accepted, drawn))
    assert 20 < accepted < 180


@pytest.mark.parametrize("lower_bound", [1e-3, 1e-2, 0.1, 0.9], ids=str)
def test_generated_schedules_pass(lower_bound):
    """The generator's own schedules are fit by the independent check too."""
    smallest, largest = by_brute_force(minimax_schedule(lower_bound, 5).take(9))
    assert smallest > 0
    assert largest <= LARGEST_VALUE
