"""State is saved by name: it survives other routes and lands in no wrong place."""

import keras
import numpy as np
import pytest

from keras_muon import Muon


def trained(**arguments):
    """A small model after one step, under fixed names."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, use_bias=False, name="a"),
            keras.layers.Dense(8, use_bias=False, name="b"),
            keras.layers.Dense(4, name="head"),
        ],
        name="model",
    )
    model.compile(Muon.for_model(model, **arguments), "mse")
    model.fit(np.ones((4, 8), "float32"), np.ones((4, 4), "float32"), verbose=0)
    return model


def state(model):
    """{name: value} of what the optimizer keeps."""
    variables = model.optimizer.variables
    return {v.name: keras.ops.convert_to_numpy(v) for v in variables}


def test_equal_routes_restore_everything(tmp_path, recwarn):
    saved, fresh = trained(), trained()
    saved.fit(np.eye(8, dtype="float32"), np.ones((8, 4), "float32"), verbose=0)
    saved.save_weights(tmp_path / "model.weights.h5")
    fresh.load_weights(tmp_path / "model.weights.h5")
    for name, value in state(saved).items():
        np.testing.assert_array_equal(state(fresh)[name], value)
    assert not [w for w in recwarn if "restored in part" in str(w.message)]


def test_other_routes_restore_what_matches_and_name_the_rest(tmp_path):
    """By position, a's second moment would become b's momentum."""
    saved = trained(exclude=".*a/kernel")
    saved.save_weights(tmp_path / "model.weights.h5")
    other = trained(exclude=".*b/kernel")
    before = state(other)
    with pytest.warns(UserWarning, match="restored in part.*b_kernel_velocity"):
        other.load_weights(tmp_path / "model.weights.h5")
    after = state(other)
    for name in ("model_head_kernel_velocity", "model_a_kernel_momentum"):
        np.testing.assert_array_equal(after[name], state(saved)[name])
    name = "model_b_kernel_velocity"
    np.testing.assert_array_equal(after[name], before[name])


def test_state_of_another_optimizer_is_refused_with_a_warning(tmp_path):
    saved, other = trained(), trained()
    saved.compile("adamw", "mse")
    saved.fit(np.ones((4, 8), "float32"), np.ones((4, 4), "float32"), verbose=0)
    saved.save_weights(tmp_path / "model.weights.h5")
    before = state(other)
    with pytest.warns(UserWarning, match="state of another optimizer"):
        other.load_weights(tmp_path / "model.weights.h5")
    for name, value in state(other).items():
        np.testing.assert_array_equal(value, before[name])
