"""Numbers that a dtype does not hold, and arrays that are no numbers: refused."""

import numpy as np
import pytest
from small_models import built

from keras_muon import Muon
from keras_muon.export import (
    StepRunner,
    adamw_step,
    muon_step,
    newton_schulz,
    optimizer_step,
    run,
    variable_values,
)

W = np.eye(4, dtype="float32")


def test_a_number_that_would_be_infinite_is_refused():
    """1e50 is infinite in float32, and its step not a number."""
    model = muon_step((4, 4))
    with pytest.raises(ValueError, match="'learning_rate' has dtype float32; 1e\\+50"):
        run(model, W, W, W, 1e50, 0.0)
    with pytest.raises(ValueError, match="'weight_decay' has dtype float32"):
        run(model, W, W, W, 0.1, 10**400)
    assert np.isfinite(run(model, W, W, W, 1e30, 0.0)[0]).all()


@pytest.mark.parametrize(("rule", "rate"), [("muon", 1e50), ("adamw", 1e30)])
def test_a_rate_that_would_be_infinite_leaves_the_runner_as_it_was(
    tmp_path, rule, rate
):
    """AdamW's, 1e20 times Muon's here, is refused before Muon's bucket moves."""
    ratio = {"ratio": 1e20} if rule == "adamw" else None
    model = built(Muon(0.02, adam_learning_rate=ratio))
    folder = optimizer_step(model, tmp_path / "step")
    parameters, state = variable_values(model)
    runner = StepRunner(folder, parameters, state, device="cpu", threads=1)
    assert runner.manifest.buckets[0].rule == "muon"
    with pytest.raises(ValueError, match=f"learning rate of {rule} has dtype float32"):
        runner.step(parameters, rate)
    assert runner.iterations == 0
    for name, value in runner.parameters.items():
        np.testing.assert_array_equal(value, parameters[name])


def test_a_constant_that_would_be_infinite_is_refused():
    with pytest.raises(ValueError, match="constant of this graph has dtype float32"):
        muon_step((8, 12), rms=1e60)
    assert muon_step((8, 12), rms=1e60, dtype="float64").graph.node


@pytest.mark.parametrize(
    "constant",
    [{"beta_1": 1 - 1e-8}, {"beta_2": 1 - 1e-8}, {"epsilon": 1e-60}],
    ids=str,
)
def test_constants_that_would_divide_by_zero_are_refused(constant):
    """The bias correction, or the root of zero moments with epsilon."""
    (name,) = constant
    with pytest.raises(ValueError, match=rf"`{name}` .* in float32"):
        adamw_step((4,), **constant)
    assert adamw_step((4,), **constant, dtype="float64").graph.node
    assert adamw_step((4,), epsilon=0.0).graph.node


def test_byte_order_is_no_other_dtype():
    """Equal to the last bit: the values are the same."""
    update = np.random.default_rng(0).standard_normal((4, 4)).astype("float32")
    model = newton_schulz((4, 4))
    np.testing.assert_array_equal(run(model, update.astype(">f4")), run(model, update))


def test_whole_numbers_of_numpy_are_numbers():
    expected = run(muon_step((4, 4)), W, W, W, 1, 0)
    result = run(muon_step((4, 4)), W, W, W, np.int64(1), np.int32(0))
    np.testing.assert_array_equal(result[0], expected[0])


@pytest.mark.parametrize("received", [None, "abc", [{}]], ids=str)
def test_what_is_no_array_of_numbers_is_refused(received):
    with pytest.raises(
        TypeError, match="'update' must be an array of numbers; received"
    ):
        run(newton_schulz((4, 4)), received)


def test_arguments_of_a_runner_are_dictionaries(tmp_path):
    model = built()
    folder = optimizer_step(model, tmp_path / "step")
    parameters, state = variable_values(model)
    for received in (list(parameters.values()), None):
        with pytest.raises(TypeError, match="`parameters` must be a dictionary"):
            StepRunner(folder, received, state)
    runner = StepRunner(folder, parameters, state, device="cpu", threads=1)
    with pytest.raises(TypeError, match="`gradients` must be a dictionary"):
        runner.step(list(parameters.values()), 0.1)
    name = next(iter(parameters))
    with pytest.raises(
        TypeError, match=rf"`gradients` of '{name}' must be an array of"
    ):
        runner.step(parameters | {name: None}, 0.1)


def test_a_negative_velocity_is_refused(tmp_path):
    """Its root would be no number."""
    model = built()
    folder = optimizer_step(model, tmp_path / "step")
    parameters, state = variable_values(model)
    name = next(key for key, parts in state.items() if "velocity" in parts)
    wrong = state[name] | {"velocity": state[name]["velocity"] - 1.0}
    with pytest.raises(ValueError, match=rf"'{name}' has a negative velocity"):
        StepRunner(folder, parameters, state | {name: wrong}, device="cpu")
