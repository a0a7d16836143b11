"""AdamW's moments that begin late count their own steps, as a new optimizer's do."""

from contextlib import nullcontext as nothing

import keras
import numpy as np
import pytest

from keras_muon import Muon
from keras_muon.export import optimizer_step

ROUTES = {".*": "adamw"}
SETTINGS = {"learning_rate": 0.01, "adam_beta_2": 0.999, "routes": ROUTES}
STEPS = 20
# Float32's rounding of weights near 1. With the whole count, of 20 here, the first step
# of a variable is half as far: 0.005 too little.
TOLERANCE = 1e-6

COMPILES = keras.backend.backend() != "torch"
PARTLY = "restored in part|Compile the model again"


def variables(*names):
    return [keras.Variable(np.ones((3, 4), "float32"), name=name) for name in names]


def gradients(step, count):
    numbers = np.random.default_rng(step)
    return list(numbers.standard_normal((count, 3, 4)).astype("float32"))


def stepped(optimizer, steps):
    """Apply gradients that follow from the count of the step."""
    for step in steps:
        given = gradients(step, 2)
        known = {v.name: v for v in optimizer.trained_variables}
        pairs = {"old": given[0], "new": given[1]}
        optimizer.apply([pairs[name] for name in known])


def built(trained, **arguments):
    optimizer = Muon(**SETTINGS | arguments)
    optimizer.build(trained)
    return optimizer


def taken_over(optimizer, state_of):
    store = {}
    state_of.save_own_variables(store)
    optimizer.load_own_variables(store)
    return optimizer


def values(trained):
    return [keras.ops.convert_to_numpy(variable) for variable in trained]


def half_new():
    """Return an optimizer of two variables with the state of one, and both."""
    old, new = variables("old", "new")
    first = built([old])
    stepped(first, range(STEPS))
    second = built([old, new])
    with pytest.warns(UserWarning, match="restored in part.*'new_velocity'"):
        taken_over(second, first)
    return second, [old, new]


def expected(steps):
    """What an optimizer of each variable alone does."""
    old, new = variables("old", "new")
    stepped(built([old]), range(STEPS + steps))
    stepped(built([new]), range(STEPS, STEPS + steps))
    return values([old, new])


def test_a_variable_that_joins_later_counts_its_own_steps():
    """The one that was there goes on, too."""
    optimizer, both = half_new()
    stepped(optimizer, range(STEPS, STEPS + 4))
    np.testing.assert_allclose(values(both), expected(4), atol=TOLERANCE)
    assert int(optimizer.iterations) == STEPS + 4
    assert [v.name for v in optimizer.late_variables] == ["new"]


def test_the_own_count_is_saved(recwarn):
    """Through another file, without a word of anything missing."""
    optimizer, both = half_new()
    stepped(optimizer, range(STEPS, STEPS + 2))
    recwarn.clear()
    again = taken_over(built(both), optimizer)
    stepped(again, range(STEPS + 2, STEPS + 4))
    np.testing.assert_allclose(values(both), expected(4), atol=TOLERANCE)
    assert not [w for w in recwarn if "optimizer" in str(w.message)]


def test_the_own_count_is_saved_where_names_change():
    """As those of models that are loaded may: the order tells."""
    optimizer, both = half_new()
    stepped(optimizer, range(STEPS, STEPS + 2))
    renamed = [
        keras.Variable(value, name=name)
        for value, name in zip(values(both), ("old_7", "new_8"), strict=True)
    ]
    again = taken_over(built(renamed), optimizer)
    assert [v.name for v in again.late_variables] == ["new_8"]


def test_moments_from_the_first_step_have_no_count_of_their_own():
    """As a file that has them all says, whatever was before."""
    whole = built(variables("old", "new"))
    stepped(whole, range(2))
    optimizer, _ = half_new()
    with pytest.warns(UserWarning, match="Compile") if COMPILES else nothing():
        taken_over(optimizer, whole)
    assert optimizer.late_variables == ()


def test_what_stays_beside_a_restored_count_keeps_its_own():
    """A file without a variable's moments leaves them, as old as they are."""
    old, new = variables("old", "new")
    first, second = built([old]), built([old, new])
    stepped(first, range(STEPS))
    (restored,) = values([old])
    old.assign(np.ones((3, 4)))
    stepped(second, range(STEPS - 3, STEPS))
    old.assign(restored)
    with pytest.warns(UserWarning, match=PARTLY):
        taken_over(second, first)
    stepped(second, range(STEPS, STEPS + 2))
    (_, alone) = variables("old", "new")
    stepped(built([alone]), range(STEPS - 3, STEPS + 2))
    np.testing.assert_allclose(values([new]), values([alone]), atol=TOLERANCE)
    (continued, _) = expected(2)
    np.testing.assert_allclose(values([old]), [continued], atol=TOLERANCE)


def test_a_count_that_is_loaded_before_building():
    """As from `.weights.h5` files: schedules go on, moments begin."""
    old, new = variables("old", "new")
    first = built([old])
    stepped(first, range(STEPS))
    store = {}
    first.save_own_variables(store)
    optimizer = Muon(**SETTINGS)
    with pytest.warns(UserWarning, match=r"optimizer\.build"):
        optimizer.load_own_variables(store)
    optimizer.build([new])
    stepped(optimizer, range(STEPS, STEPS + 4))
    assert int(optimizer.iterations) == STEPS + 4
    np.testing.assert_allclose(values([new]), [expected(4)[1]], atol=TOLERANCE)


def test_a_momentum_of_another_rule_is_no_moment():
    """Muon's is a sum, ten times an average: AdamW begins anew."""
    (old,) = variables("old")
    first = built([old], routes={".*": "muon"})
    stepped(first, range(STEPS))
    assert np.abs(values([first.state_of(0)[0]])).max() > 1.0
    second = built([old])
    with pytest.warns(UserWarning, match="'old_momentum', 'old_velocity'"):
        taken_over(second, first)
    assert not np.any(values(second.state_of(0)))


def test_compiled_steps_are_warned_of():
    """JAX and TensorFlow have compiled the counts by then; torch follows."""
    old, new = variables("old", "new")
    first, second = built([old]), built([old, new])
    stepped(first, range(STEPS))
    stepped(second, range(2))
    with pytest.warns(UserWarning, match=PARTLY) as caught:
        taken_over(second, first)
    told = [str(w.message) for w in caught if "Compile the model" in str(w.message)]
    assert len(told) == COMPILES


def test_graphs_do_not_count_apart(tmp_path):
    optimizer, _ = half_new()
    with pytest.raises(ValueError, match=r"moments of 'new' began later.*built anew"):
        optimizer_step(optimizer, tmp_path / "step")


def test_as_a_rule_a_file_has_no_counts():
    """What began with the optimizer needs none."""
    optimizer = built(variables("old", "new"))
    stepped(optimizer, range(2))
    store = {}
    optimizer.save_own_variables(store)
    assert not [name for name in store if "start" in name]
    assert len(store) == len(optimizer.variables)
