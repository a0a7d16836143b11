"""`use_ema`: averages by Keras' formula, and training that goes on after `fit`."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

SHAPES = {"first": (6, 4), "second": (6, 4), "gain": (5,)}
ROUTES = {"first": "muon", "second": "muon", "gain": "adamw"}
STEPS = 5
KEEP = 0.6
AVERAGED = {"use_ema": True, "ema_momentum": KEEP}

# Largest error seen: 7.2e-7, on each backend. What the tests tell apart differs by 0.09
# and more.
TOLERANCE = 1e-5


def trained(after_step=None, **arguments):
    """Return all weights in one row per step, the variables and the optimizer."""
    numbers = np.random.default_rng(5)
    variables = [
        keras.Variable(numbers.standard_normal(shape), name=name, dtype="float32")
        for name, shape in SHAPES.items()
    ]
    optimizer = Muon(0.1, routes=ROUTES, **arguments)
    rows = []
    for step in range(1, STEPS + 1):
        gradients = [numbers.standard_normal(shape) for shape in SHAPES.values()]
        optimizer.apply([keras.ops.cast(g, "float32") for g in gradients], variables)
        if after_step is not None:
            after_step(step, variables)
        rows.append(flat(variables))
    return np.stack(rows), variables, optimizer


def flat(variables):
    return np.concatenate([keras.ops.convert_to_numpy(v).ravel() for v in variables])


def average(rows):
    """The moving average that starts at the first row."""
    result = np.asarray(rows[0], "float64")
    for row in rows[1:]:
        result = KEEP * result + (1 - KEEP) * row
    return result


def test_averages_do_not_disturb_the_steps():
    """Without overwriting, the weights are those of a Muon without averages."""
    np.testing.assert_array_equal(trained(**AVERAGED)[0], trained()[0])


def test_finalizing_writes_the_averages():
    """`finalize_variable_values` replaces each weight by its moving average."""
    rows, variables, optimizer = trained(**AVERAGED)
    optimizer.finalize_variable_values(variables)
    np.testing.assert_allclose(flat(variables), average(rows), rtol=0, atol=TOLERANCE)
    assert np.abs(rows[-1] - average(rows)).max() > 1000 * TOLERANCE


def test_finalizing_without_averages_changes_nothing():
    """A Muon without `use_ema` leaves the weights alone at the end of `fit`."""
    rows, variables, optimizer = trained()
    optimizer.finalize_variable_values(variables)
    np.testing.assert_array_equal(flat(variables), rows[-1])


@pytest.mark.parametrize("every", [1, 2, 3])
def test_weights_are_overwritten_every_few_steps(every):
    """With `ema_overwrite_frequency` training goes on from the averages."""
    averages = {}

    def overwrite(step, variables):
        for variable in variables:
            newest = keras.ops.convert_to_numpy(variable)
            old = averages.get(variable.name, newest)
            averages[variable.name] = KEEP * old + (1 - KEEP) * newest
            if step % every == 0:
                variable.assign(averages[variable.name])

    rows = trained(ema_overwrite_frequency=every, **AVERAGED)[0]
    by_hand = trained(overwrite)[0]
    np.testing.assert_allclose(rows, by_hand, rtol=0, atol=TOLERANCE)


def test_overwriting_changes_the_weights():
    """The comparison above can fail: without overwriting the weights differ."""
    overwritten = trained(ema_overwrite_frequency=3, **AVERAGED)[0]
    assert np.abs(overwritten - trained(**AVERAGED)[0]).max() > 1000 * TOLERANCE
