"""State that fits in part, through both kinds of file: what matches is restored."""

import re
import warnings

import keras
import numpy as np
import pytest

from keras_muon import Muon

FILES = ("model.weights.h5", "model.keras")
files = pytest.mark.parametrize("file", FILES)

X = np.linspace(-1, 1, 32, dtype="float32").reshape(4, 8)
Y = np.ones((4, 4), "float32")


def new_model(frozen=(), width=8):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, use_bias=False, name="a"),
            keras.layers.Dense(width, use_bias=False, name="b"),
            keras.layers.Dense(4, name="head"),
        ],
        name="model",
    )
    for name in frozen:
        model.get_layer(name).trainable = False
    return model


def trained(optimizer, frozen=()):
    model = new_model(frozen)
    model.compile(optimizer, "mse", run_eagerly=True)
    model.fit(X, Y, verbose=0)
    return model


def fresh(optimizer, frozen=()):
    """A model that took no step, with a built optimizer, as the README asks for."""
    model = new_model(frozen)
    model.compile(optimizer, "mse", run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    return model


def write(model, folder, file):
    """Save the model into a file whose ending decides of which kind it is."""
    path = folder / file
    model.save(path) if file.endswith(".keras") else model.save_weights(path)
    return path


def state(model):
    kept = {v.name: keras.ops.convert_to_numpy(v) for v in model.optimizer.variables}
    return {name.removeprefix("model_"): value for name, value in kept.items()}


def assert_restored(after, saved, names):
    for name in names:
        assert np.abs(saved[name]).max() > 0, name
        np.testing.assert_array_equal(after[name], saved[name], err_msg=name)


def assert_trains(model):
    """Training goes on, with finite weights that move."""
    before = [weight.copy() for weight in model.get_weights()]
    model.fit(X, Y, verbose=0)
    pairs = list(zip(before, model.get_weights(), strict=True))
    assert all(np.isfinite(now).all() for _, now in pairs)
    assert any((then != now).any() for then, now in pairs)


@files
def test_a_variable_more(file, tmp_path):
    """Unfrozen since: its momentum starts at zero, the others' continue."""
    saved = trained(Muon(), frozen=["a"])
    other = fresh(Muon())
    with pytest.warns(UserWarning, match="left as they are: .model_a_kernel_momentum'"):
        other.load_weights(write(saved, tmp_path, file))
    after = state(other)
    names = state(saved).keys()
    assert after.keys() - names == {"a_kernel_momentum"}
    assert_restored(after, state(saved), names)
    assert np.abs(after["a_kernel_momentum"]).max() == 0
    assert_trains(other)


@files
def test_a_variable_fewer(file, tmp_path):
    """Frozen since: its momentum has no place any more, and is named."""
    saved = trained(Muon())
    other = fresh(Muon(), frozen=["b"])
    with pytest.warns(UserWarning, match="without a place here: .model_b_kernel_mom"):
        other.load_weights(write(saved, tmp_path, file))
    after = state(other)
    assert state(saved).keys() - after.keys() == {"b_kernel_momentum"}
    assert_restored(after, state(saved), after.keys())
    assert_trains(other)


@files
def test_another_rule(file, tmp_path):
    """Excluded since: AdamW has no use for a momentum of Muon, which is a sum."""
    saved = trained(Muon())
    other = fresh(Muon(exclude="model/a/kernel|a/kernel"))
    with pytest.warns(UserWarning, match=r"left as they are: .*a_kernel_velocity'\."):
        other.load_weights(write(saved, tmp_path, file))
    momentum = "a_kernel_momentum"
    assert_restored(state(other), state(saved), state(saved).keys() - {momentum})
    assert not state(other)[momentum].any()
    assert_trains(other)


@files
def test_moving_averages_that_were_not_saved(file, tmp_path):
    """Averages start where the file has none."""
    saved = trained(Muon())
    other = fresh(Muon(use_ema=True))
    with pytest.warns(UserWarning, match="restored in part; not in the file"):
        other.load_weights(write(saved, tmp_path, file))
    assert_restored(state(other), state(saved), state(saved).keys())


@files
def test_other_settings_of_the_same_state(file, tmp_path, recwarn):
    """Momentum, schedule and scaling change how state is used, not which there is."""
    saved = trained(Muon(momentum=0.5))
    other = fresh(Muon(momentum=0.95, schedule="jordan", scaling="mup"))
    other.load_weights(write(saved, tmp_path, file))
    assert not [w for w in recwarn if "ptimizer" in str(w.message)]
    assert_restored(state(other), state(saved), state(saved).keys())
    assert_trains(other)


@files
def test_a_file_of_adam(file, tmp_path):
    """Its state is no state of Muon: a warning, and the state stays as it is."""
    saved = trained("adam")
    other = trained(Muon())
    before = state(other)
    with pytest.warns(UserWarning, match="state of another optimizer; nothing is rest"):
        other.load_weights(write(saved, tmp_path, file))
    after = state(other)
    assert after.keys() == before.keys()
    assert_restored(after, before, [name for name in before if name != "iteration"])
    for value, expected in zip(other.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)
    assert_trains(other)


@files
def test_a_file_from_before_the_first_step(file, tmp_path, recwarn):
    """Its weights are untrained, so the momentum of others is no state for them."""
    new, other = new_model(), trained(Muon(1e-2))
    new.compile(Muon(2e-2), "mse", run_eagerly=True)
    assert np.abs(state(other)["a_kernel_momentum"]).max() > 0
    other.load_weights(write(new, tmp_path, file))
    for name, value in state(other).items():
        expected = np.float32(2e-2) if name == "learning_rate" else 0
        np.testing.assert_array_equal(value, expected, err_msg=name)
    assert not [w for w in recwarn if "ptimizer" in str(w.message)]
    assert_trains(other)


@files
def test_a_file_of_muon_for_adam(file, tmp_path):
    """And the other way round Keras' optimizer keeps its state, with its warning."""
    saved, other = trained(Muon()), trained("adam")
    before = state(other)
    with pytest.warns(UserWarning, match="optimizer"):
        other.load_weights(write(saved, tmp_path, file))
    for name, value in state(other).items():
        np.testing.assert_array_equal(value, before[name])


@files
def test_a_matrix_of_another_shape(file, tmp_path):
    """Skipped by the model on request, and by the optimizer, which names its state."""
    saved = trained(Muon())
    other = new_model(width=16)
    other.compile(Muon(), "mse")
    other.optimizer.build(other.trainable_variables)
    path = write(saved, tmp_path, file)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        other.load_weights(path, skip_mismatch=True)
    (partly,) = [w for w in caught if "restored in part" in str(w.message)]
    assert re.search(r"b_kernel_momentum', .*head_kernel_momentum", str(partly.message))
    assert "without a place" not in str(partly.message)
    assert_restored(state(other), state(saved), ["a_kernel_momentum"])
    assert np.abs(state(other)["b_kernel_momentum"]).max() == 0
