"""Schedules, callables and callbacks: both rates are what Keras says, step by step."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

SHAPES = {"first": (6, 4), "second": (6, 4), "gain": (5,)}
ROUTES = {"first": "muon", "second": "muon", "gain": "adamw"}
STEPS = 4

RATES = (0.1, 0.05, 0.025, 0.0125)
OTHER_RATES = (0.3, 0.3, 0.02, 0.02)
HALVED = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
DROPPED = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.3, 0.02])

# Largest error seen: 0 on each backend. Rates that lag by one step put a weight 0.07
# off.
TOLERANCE = 1e-5


def trained(learning_rate, before_step=None, **arguments):
    """Return hidden matrices and the gain after STEPS steps, as two arrays."""
    numbers = np.random.default_rng(3)
    variables = [
        keras.Variable(numbers.standard_normal(shape), name=name, dtype="float32")
        for name, shape in SHAPES.items()
    ]
    optimizer = Muon(learning_rate, routes=ROUTES, **arguments)
    for step in range(STEPS):
        if before_step is not None:
            before_step(optimizer, step)
        gradients = [numbers.standard_normal(shape) for shape in SHAPES.values()]
        optimizer.apply([keras.ops.cast(g, "float32") for g in gradients], variables)
    *matrices, gain = [keras.ops.convert_to_numpy(v) for v in variables]
    return np.stack(matrices), gain


def trained_by_hand(rates, **arguments):
    """Return the same with a float rate that is set before each step."""

    def set_rate(optimizer, step):
        optimizer.learning_rate = rates[step]

    return trained(rates[0], set_rate, **arguments)


def largest_difference(results, others):
    return max(np.abs(a - b).max() for a, b in zip(results, others, strict=True))


def test_a_schedule_is_a_rate_set_by_hand():
    """A schedule of Keras gives both rules the rate of its step."""
    assert largest_difference(trained(HALVED), trained_by_hand(RATES)) < TOLERANCE


def test_a_lagging_schedule_would_be_seen():
    """The comparison can fail: one step late is far away."""
    late = trained_by_hand((RATES[0], *RATES[:-1]))
    assert largest_difference(trained(HALVED), late) > 1000 * TOLERANCE


def test_two_schedules_share_one_step_counter():
    """Each rule follows its own schedule, and both count the same steps."""
    matrices, gain = trained(HALVED, adam_learning_rate=DROPPED)
    expected = trained_by_hand(RATES)[0], trained_by_hand(OTHER_RATES)[1]
    assert largest_difference((matrices, gain), expected) < TOLERANCE
    swapped = trained(DROPPED, adam_learning_rate=HALVED)
    assert largest_difference((matrices, gain), swapped) > 1000 * TOLERANCE


def test_a_schedule_for_adamw_leaves_a_float_for_muon():
    """A schedule as `adam_learning_rate` does not touch the hidden matrices."""
    matrices, gain = trained(0.1, adam_learning_rate=DROPPED)
    expected = trained(0.1)[0], trained_by_hand(OTHER_RATES)[1]
    assert largest_difference((matrices, gain), expected) < TOLERANCE


def test_a_float_for_adamw_is_constant_beside_a_schedule():
    """A float as `adam_learning_rate` does not follow the schedule of Muon."""
    matrices, gain = trained(HALVED, adam_learning_rate=0.02)
    expected = trained_by_hand(RATES)[0], trained(0.02)[1]
    assert largest_difference((matrices, gain), expected) < TOLERANCE


def test_a_float_for_adamw_keeps_its_proportion():
    """Setting `learning_rate` moves a float `adam_learning_rate` along with it."""
    matrices, gain = trained_by_hand(RATES, adam_learning_rate=0.3)
    expected = trained_by_hand(RATES)[0], trained_by_hand([3 * r for r in RATES])[1]
    assert largest_difference((matrices, gain), expected) < TOLERANCE


def trained_by_callable(argument, rates):
    """Return the same with a callable that answers `rates` step by step."""
    current = {}

    def set_current(optimizer, step):
        current["rate"] = rates[step]

    arguments = {"learning_rate": 0.1, argument: lambda: current["rate"]}
    return trained(before_step=set_current, **arguments)


def test_a_rate_says_how_it_follows():
    """Printed, without an address of memory."""
    assert repr(Muon().adam_rate_rule) == "AdamRate(learning_rate)"
    half = Muon(0.2, adam_learning_rate=0.1).adam_rate_rule
    assert repr(half) == "AdamRate(0.5 * learning_rate)"
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    beside = Muon(schedule, adam_learning_rate=0.01).adam_rate_rule
    assert repr(beside) == "AdamRate(0.01)"


def test_the_rate_of_adamw_reads_as_that_of_muon():
    """A number for logs, at this step; it follows and cannot be set."""
    optimizer = Muon(0.2, adam_learning_rate=0.1)
    optimizer.learning_rate = 0.1
    assert float(optimizer.adam_learning_rate) == np.float32(0.05)
    assert float(Muon(0.1, adam_learning_rate=HALVED).adam_learning_rate) == (
        np.float32(0.1)
    )
    with pytest.raises(AttributeError, match=r"optimizer is made.*received 0\.5"):
        optimizer.adam_learning_rate = 0.5


def test_a_callable_is_asked_at_every_step():
    """A callable `learning_rate` may return another rate each time, to both rules."""
    results = trained_by_callable("learning_rate", RATES)
    assert largest_difference(results, trained_by_hand(RATES)) < TOLERANCE


def test_a_callable_for_adamw_is_asked_at_every_step():
    """A callable `adam_learning_rate` drives the gain alone."""
    results = trained_by_callable("adam_learning_rate", OTHER_RATES)
    expected = trained(0.1)[0], trained_by_hand(OTHER_RATES)[1]
    assert largest_difference(results, expected) < TOLERANCE
