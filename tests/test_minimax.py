"""The generator: published tables, and the optimum by Chebyshev's theorem."""

import itertools
import json

import numpy as np
import pytest

from keras_muon import SCHEDULES, Schedule, minimax_schedule

# Amsel et al. 2025, arXiv:2505.16932, algorithm 1, as printed: lower bound 1e-3.
POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845749475, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)

# CANS, another group's optimum for the same bound without a cushion, four decimals.
CANS = (
    (8.4703, -25.1081, 18.6293),
    (4.1828, -3.1087, 0.5806),
    (3.9619, -2.9541, 0.5630),
    (3.2866, -2.4647, 0.5074),
    (2.2737, -1.6447, 0.4162),
)

# First row of modded-nanogpt, nanochat and Dion: cushion 0.02, safety 1.02.
NANOGPT_FIRST = (8.156554524902461, -22.48329292557795, 15.878769915207462)

LOWER_BOUNDS = (1e-3, 1e-2, 0.1, 0.5)


def polynomial(triple, s):
    a, b, c = triple
    return s * (a + s * s * (b + s * s * c))


def generated(lower_bound, **arguments):
    """The triples before the safety factor, of five steps."""
    return minimax_schedule(lower_bound, 5, **arguments).coefficients[:5]


def largest_error(triple, lower, upper):
    return np.abs(1.0 - polynomial(triple, np.geomspace(lower, upper, 2_001))).max()


def test_the_table_of_polar_express_is_reproduced():
    """Bound 1e-3 and the default cushion give the paper's eight rows."""
    rows = np.array(minimax_schedule(1e-3, 7).coefficients[:8])
    assert SCHEDULES["polar_express"].coefficients == POLAR_EXPRESS
    # Largest difference seen 9.5e-12; a cushion of 0.0241 is off by 1.7e-3.
    np.testing.assert_allclose(rows, POLAR_EXPRESS, atol=1e-8, rtol=0)
    other = np.array(minimax_schedule(1e-3, 7, cushion=0.0241).coefficients[:8])
    assert np.abs(other - POLAR_EXPRESS).max() > 1e-3


def test_the_table_of_cans_is_reproduced_without_a_cushion():
    """The same optimum was published by others, to four decimals."""
    # Largest difference seen 5.0e-5, the rounding of the print; with the default
    # cushion it is off by 1.5.
    np.testing.assert_allclose(generated(1e-3, cushion=0), CANS, atol=6e-5, rtol=0)
    assert np.abs(np.array(generated(1e-3)) - CANS).max() > 1


def test_the_first_row_of_nanogpt_is_reproduced():
    """A third published row checks cushion and safety together."""
    rows = minimax_schedule(1e-3, 5, cushion=0.02, safety=1.02).take(5)
    # Largest relative difference seen 1.2e-15; a safety of 1.01 is off by 1 to 5 %.
    np.testing.assert_allclose(rows[0], NANOGPT_FIRST, rtol=1e-12)


def ripple(triple, lower, upper):
    """The error 1 - p at the ends and at its extrema between them, in order."""
    s = np.geomspace(lower, upper, 200_001)
    error = 1.0 - polynomial(triple, s)
    slope = np.diff(error)
    turns = 1 + np.flatnonzero(slope[:-1] * slope[1:] < 0)
    return error[[0, *turns, -1]]


@pytest.mark.parametrize("lower", LOWER_BOUNDS, ids=str)
def test_the_error_of_every_step_equioscillates(lower):
    """Four extrema of equal size and alternating sign: the mark of the optimum."""
    upper = 1.0
    for triple in generated(lower, cushion=0):
        extrema = ripple(triple, lower, upper)
        signs = np.array([1.0, -1.0, 1.0, -1.0])
        # Largest relative difference seen 1.2e-9, from the grid; 'jordan' has 0.7.
        np.testing.assert_allclose(extrema, signs * extrema[0], rtol=1e-6)
        lower, upper = 1.0 - extrema[0], 1.0 + extrema[0]
        if extrema[0] < 1e-3:  # the ripple of the next step is lost in rounding
            break
    assert upper < 1.5


def test_published_triples_do_not_equioscillate():
    """The comparison above notices a polynomial that is only good."""
    (jordan,) = SCHEDULES["jordan"].take(1)
    extrema = np.abs(ripple(jordan, 0.1, 1.0))
    assert extrema.max() > 2 * extrema.min()


def best_of_random_changes(triple, lower, rng):
    """Smallest error among triples around `triple`, near and far."""
    sizes = np.repeat(10.0 ** np.arange(-7, 0), 60)
    changes = rng.standard_normal((sizes.size, 3)) * sizes[:, None]
    return min(largest_error(triple * (1 + change), lower, 1.0) for change in changes)


@pytest.mark.parametrize("lower", LOWER_BOUNDS, ids=str)
def test_no_random_change_of_the_quintic_is_better(rng, lower):
    """Among 420 neighbours none comes closer to 1 on the interval."""
    triple = np.array(generated(lower, cushion=0)[0])
    error = largest_error(triple, lower, 1.0)
    # The grid misses 2.2e-8 of the extrema; from a triple that is 0.1 % away, the
    # same search gains 7e-3 or more.
    assert best_of_random_changes(triple, lower, rng) > error - 1e-6
    moved = triple * (1.001, 0.999, 1.001)
    moved_error = largest_error(moved, lower, 1.0)
    assert best_of_random_changes(moved, lower, rng) < moved_error - 1e-3


@pytest.mark.parametrize("lower", LOWER_BOUNDS, ids=str)
def test_each_step_serves_the_image_of_the_one_before(lower):
    """All steps together map [lower, 1] to a band around 1 that shrinks."""
    s, widths = np.geomspace(lower, 1.0, 20_001), [1.0 - lower]
    for triple in generated(lower, cushion=0):
        s = polynomial(triple, s)
        # Largest difference seen 3.2e-12; 'jordan' instead is off by 0.09 or more.
        assert s.min() + s.max() == pytest.approx(2.0, abs=1e-9)
        widths.append(1.0 - s.min())
    assert all(new < max(old, 1e-12) for old, new in itertools.pairwise(widths))


@pytest.mark.parametrize("cushion", [0.05, 0.2], ids=str)
def test_a_cushion_shortens_the_interval_and_recentres(cushion):
    """The first step is the optimum of the shorter interval, scaled."""
    lower = 0.01
    (first, *_), (optimum, *_) = generated(lower, cushion=cushion), generated(cushion)
    factors = np.divide(first, optimum)
    # Largest difference seen 0; the factors themselves are 1.15 and 1.58.
    np.testing.assert_allclose(factors, factors[0], rtol=1e-12)
    ends = polynomial(first, lower) + polynomial(first, 1.0)
    assert ends == pytest.approx(2.0, abs=1e-12)
    assert factors[0] > 1.1


def test_a_cushion_below_the_lower_bound_changes_nothing():
    """It only acts on intervals that are wider than it allows."""
    assert generated(0.1, cushion=0.05) == generated(0.1, cushion=0)


@pytest.mark.parametrize("lower", [*LOWER_BOUNDS, 0.99, 0.9999999], ids=str)
def test_the_tail_converges_to_the_polar_factor(lower):
    """Steps beyond the generated ones bring every value to 1."""
    s = np.geomspace(lower, 1.0, 101)
    for triple in minimax_schedule(lower, 5).take(12):
        s = polynomial(triple, s)
    # Largest error seen 1.1e-16; five steps alone are off by 2.4e-6 to 0.15.
    np.testing.assert_allclose(s, 1.0, atol=1e-13)


@pytest.mark.parametrize(
    ("lower", "steps"), [(1e-2, 1), (1e-3, 3), (1e-4, 5), (1e-6, 8)], ids=str
)
def test_few_steps_for_a_low_bound_are_served_too(lower, steps):
    """Every number of steps is one that can be asked for, converged or not."""
    s = np.geomspace(lower, 1.0, 20_001)
    for triple in minimax_schedule(lower, steps).take():
        s = polynomial(triple, s)
    assert s.min() > 0
    assert s.max() < 2


def test_what_is_returned_is_an_ordinary_schedule():
    """It takes the steps that were asked for, and goes through JSON."""
    schedule = minimax_schedule(1e-3, 6, safety=1.05)
    assert (schedule.steps, schedule.tail, schedule.safety) == (6, "repeat", 1.05)
    assert len(schedule.take()) == 6
    assert "0.001" in schedule.source
    assert Schedule.from_json(json.loads(json.dumps(schedule.to_json()))) == schedule


def test_steep_schedules_without_safety_are_refused():
    """A bound of 1e-3 leaves no room for rounding unless safety makes some."""
    with pytest.raises(ValueError, match=r"'minimax_0\.001' blows up"):
        minimax_schedule(1e-3, 5, safety=1.0)


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"lower_bound": 0.0}, "lower_bound"),
        ({"lower_bound": 1e-30}, "lower_bound"),
        ({"lower_bound": 1.0}, "lower_bound"),
        ({"lower_bound": np.nan}, "lower_bound"),
        ({"steps": 0}, "steps"),
        ({"cushion": 1.0}, "cushion"),
        ({"cushion": -0.1}, "cushion"),
        ({"safety": 0.9}, "safety"),
    ],
    ids=str,
)
def test_arguments_outside_their_range_are_refused(arguments, argument):
    """The message names the argument that is wrong."""
    with pytest.raises(ValueError, match=f"`{argument}` must"):
        minimax_schedule(**({"lower_bound": 1e-3, "steps": 5} | arguments))
