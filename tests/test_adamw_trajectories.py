"""Six steps of AdamW's variables equal closed sums in float64, whatever their rate."""

import keras
import numpy as np
import pytest
from trajectory_oracle import adamw_run, muon_run

from keras_muon import Muon

STEPS = 6
RATE = 0.05

# Largest error seen on any backend: 2.5e-6. The smallest effect that must be noticed, a
# decay of 0.004 that is left out, moves an entry of every variable by 1.3e-3 or more.
TOLERANCE = 1e-5

SHAPES = {"hidden": (8, 20), "table": (7, 5), "bias": (9,), "temperature": ()}
RULES = {"hidden": "muon", "table": "adamw"}

DEFAULTS = {"beta_1": 0.9, "beta_2": 0.95, "epsilon": 1e-7, "decay": 0.004}


@pytest.fixture
def weights(rng):
    return {
        name: rng.normal(size=shape).astype("float32") for name, shape in SHAPES.items()
    }


@pytest.fixture
def gradients(rng):
    return {
        name: rng.normal(size=(STEPS, *shape)).astype("float32")
        for name, shape in SHAPES.items()
    }


def variables_of(weights):
    return [keras.Variable(weight, name=name) for name, weight in weights.items()]


def stepped(optimizer, variables, gradients, steps=range(STEPS)):
    """Apply the gradients of some steps; return the weights after them."""
    optimizer.build(variables)
    for step in steps:
        optimizer.apply(
            [keras.ops.convert_to_tensor(gradients[v.name][step]) for v in variables]
        )
    return {v.name: keras.ops.convert_to_numpy(v.value) for v in variables}


def distance(actual, weights, gradients, rates=RATE, **changes):
    """The largest error of each of AdamW's variables."""
    return {
        name: np.abs(
            actual[name]
            - adamw_run(
                weights[name], gradients[name], rates=rates, **DEFAULTS | changes
            )
        ).max()
        for name in SHAPES
        if name != "hidden"
    }


def muon_distance(actual, weights, gradients, rates):
    """The largest error of the one hidden matrix."""
    settings = {"momentum": 0.9, "nesterov": True, "scaling": "moonlight"}
    axes = ((), (0,), (1,))
    kernel, steps = weights["hidden"], gradients["hidden"]
    wanted = muon_run(kernel, steps, axes, rates=rates, decay=0.004, **settings)
    return np.abs(actual["hidden"] - wanted).max()


# Arguments of Muon, and what the oracle is told instead of its defaults.
CASES = {
    "defaults": ({}, {}),
    "beta_1": ({"adam_beta_1": 0.8}, {"beta_1": 0.8}),
    "beta_2": ({"adam_beta_2": 0.999}, {"beta_2": 0.999}),
    "epsilon": ({"adam_epsilon": 0.02}, {"epsilon": 0.02}),
    "rate": ({"adam_learning_rate": 0.01}, {"rates": 0.01}),
    "rate_of_zero": ({"adam_learning_rate": 0.0}, {"rates": 0.0}),
    "decay": ({"adam_weight_decay": 0.2}, {"decay": 0.2}),
    "no_decay": ({"adam_weight_decay": None}, {"decay": 0.0}),
    "same_decay": ({"weight_decay": 0.3}, {"decay": 0.3}),
    "only_adamw_decays": (
        {"weight_decay": None, "adam_weight_decay": 0.2},
        {"decay": 0.2},
    ),
    "own_decay_at_own_rate": (
        {"adam_weight_decay": 0.2, "adam_learning_rate": 0.03},
        {"decay": 0.2, "rates": 0.03},
    ),
}


@pytest.mark.parametrize(("arguments", "changes"), CASES.values(), ids=CASES)
def test_six_steps_equal_the_oracle(weights, gradients, arguments, changes):
    """Rate, betas, epsilon and decay of AdamW are its own; and the oracle sees each."""
    optimizer = Muon(RATE, routes=RULES, **arguments)
    actual = stepped(optimizer, variables_of(weights), gradients)
    wrong = distance(actual, weights, gradients, **changes)
    assert max(wrong.values()) < TOLERANCE, wrong
    if changes:
        ignored = distance(actual, weights, gradients)
        assert min(ignored.values()) > 50 * TOLERANCE, ignored


def test_the_comparison_notices_a_missing_step(weights, gradients):
    """Five steps are not six, and step numbers count from one."""
    optimizer = Muon(RATE, routes=RULES)
    actual = stepped(optimizer, variables_of(weights), gradients, range(STEPS - 1))
    wrong = distance(actual, weights, gradients)
    assert min(wrong.values()) > 100 * TOLERANCE, wrong


def test_a_float_rate_keeps_its_proportion(weights, gradients):
    """A callback that lowers the rate of Muon lowers AdamW's by the same factor."""
    variables = variables_of(weights)
    optimizer = Muon(0.05, adam_learning_rate=0.01, routes=RULES)
    stepped(optimizer, variables, gradients, range(3))
    optimizer.learning_rate = 0.02
    actual = stepped(optimizer, variables, gradients, range(3, STEPS))
    muon_rates, adam_rates = [0.05] * 3 + [0.02] * 3, [0.01] * 3 + [0.004] * 3
    wrong = distance(actual, weights, gradients, rates=adam_rates)
    assert max(wrong.values()) < TOLERANCE, wrong
    assert muon_distance(actual, weights, gradients, muon_rates) < TOLERANCE
    constant = distance(actual, weights, gradients, rates=0.01)
    assert min(constant.values()) > 100 * TOLERANCE, constant


def halving():
    return keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)


def falling():
    return keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.02, 0.005])


# What those two return at the first six steps, which Keras counts from zero.
HALVING = [0.05 * 0.5 ** (step / 2) for step in range(STEPS)]
FALLING = [0.02] * 3 + [0.005] * 3

# (learning_rate, adam_learning_rate, rates of Muon, rates of AdamW)
SCHEDULED = {
    "one_for_both": (halving, lambda: None, HALVING, HALVING),
    "one_each": (halving, falling, HALVING, FALLING),
    "beside_a_constant": (halving, lambda: 0.01, HALVING, 0.01),
    "of_adamw_alone": (lambda: 0.05, falling, 0.05, FALLING),
    "callables": (lambda: lambda: 0.03, lambda: lambda: 0.01, 0.03, 0.01),
}


@pytest.mark.parametrize(
    ("rate", "adam_rate", "muon_rates", "adam_rates"), SCHEDULED.values(), ids=SCHEDULED
)
def test_schedules_count_the_same_steps(
    weights, gradients, rate, adam_rate, muon_rates, adam_rates
):
    """Muon and AdamW each follow their schedule, on one counter of steps."""
    optimizer = Muon(rate(), adam_learning_rate=adam_rate(), routes=RULES)
    actual = stepped(optimizer, variables_of(weights), gradients)
    wrong = distance(actual, weights, gradients, rates=adam_rates)
    assert max(wrong.values()) < TOLERANCE, wrong
    assert muon_distance(actual, weights, gradients, muon_rates) < TOLERANCE


def test_the_comparison_notices_a_schedule_one_step_late(weights, gradients):
    """A counter that starts at one would be far off, for both rules."""
    optimizer = Muon(halving(), routes=RULES)
    actual = stepped(optimizer, variables_of(weights), gradients)
    late = [rate / 2**0.5 for rate in HALVING]
    wrong = distance(actual, weights, gradients, rates=late)
    assert min(wrong.values()) > 100 * TOLERANCE, wrong
    assert muon_distance(actual, weights, gradients, late) > 100 * TOLERANCE


def test_variables_can_be_kept_from_decay(weights, gradients):
    """Keras' `exclude_from_weight_decay` holds for both rules."""
    optimizer = Muon(RATE, weight_decay=0.3, routes=RULES)
    optimizer.exclude_from_weight_decay(var_names=["bias", "hidden"])
    actual = stepped(optimizer, variables_of(weights), gradients)
    decayed = distance(actual, weights, gradients, decay=0.3)
    kept = distance(actual, weights, gradients, decay=0.0)
    assert max(decayed["table"], decayed["temperature"]) < TOLERANCE
    assert kept["bias"] < TOLERANCE < 100 * TOLERANCE < decayed["bias"]
    undecayed = Muon(RATE, weight_decay=None, routes=RULES)
    without = stepped(undecayed, variables_of(weights), gradients)
    np.testing.assert_array_equal(actual["hidden"], without["hidden"])
