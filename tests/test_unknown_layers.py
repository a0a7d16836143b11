"""Layers of users: their matrices are listed in one warning, never guessed."""

import warnings

import keras
import numpy as np
import pytest

from keras_muon import Muon

layers = keras.layers


@keras.saving.register_keras_serializable(package="keras_muon_tests")
class Mixer(layers.Layer):
    """A user's layer with a matrix, a stack of matrices and a vector."""

    def build(self, input_shape):
        width = input_shape[-1]
        zeros = {"initializer": "zeros"}
        self.w = self.add_weight((width, width), name="w", **zeros)
        self.experts = self.add_weight((2, width, width), name="experts", **zeros)
        self.gate = self.add_weight((width,), name="gate", **zeros)

    def call(self, x):
        return keras.ops.matmul(x * self.gate, self.w + keras.ops.sum(self.experts, 0))


def model_with_mixer():
    head = layers.Dense(4, name="head", kernel_initializer="zeros")
    return keras.Sequential([keras.Input((8,)), Mixer(name="mixer"), head])


def muon_warnings(caught):
    return [w for w in caught if "Muon leaves" in str(w.message)]


def test_unknown_matrices_are_listed():
    """The warning names each open variable, its shape and its layer."""
    model = model_with_mixer()
    with pytest.warns(UserWarning, match="leaves 2 variables to AdamW") as caught:
        Muon.for_model(model)
    (warning,) = caught
    text = str(warning.message)
    assert "mixer/w (8, 8): unknown layer Mixer" in text
    assert "mixer/experts (2, 8, 8): unknown layer Mixer" in text
    assert "gate" not in text
    assert "head/kernel" not in text


def test_unknown_matrices_are_not_guessed():
    """They go to AdamW and say so; vectors are proven by their shape."""
    model, optimizer = model_with_mixer(), Muon()
    with pytest.warns(UserWarning, match="mixer/w"):
        optimizer.build(model.trainable_variables)
    found = {r.path.split("/", 1)[1]: (r.rule, r.certain) for r in optimizer.routes}
    assert found == {
        "mixer/w": ("adamw", False),
        "mixer/experts": ("adamw", False),
        "mixer/gate": ("adamw", True),
        "head/kernel": ("adamw", True),
        "head/bias": ("adamw", True),
    }


def test_one_warning_in_fit():
    """A bare optimizer warns when it is built, and not again."""
    model = model_with_mixer()
    model.compile(optimizer=Muon(), loss="mse")
    x, y = np.zeros((4, 8), "float32"), np.zeros((4, 4), "float32")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, y, verbose=0)
        model.fit(x, y, verbose=0)
    assert len(muon_warnings(caught)) == 1


def test_one_warning_for_model_and_build():
    """What `for_model` told, the building of its optimizer does not repeat."""
    model = model_with_mixer()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = Muon.for_model(model)
        optimizer.build(model.trainable_variables)
    assert len(muon_warnings(caught)) == 1


def functional_with_mixer():
    inputs = keras.Input((8,))
    head = layers.Dense(4, name="head", kernel_initializer="zeros")
    return keras.Model(inputs, head(Mixer(name="mixer")(inputs)))


@pytest.mark.parametrize("build", [functional_with_mixer, model_with_mixer])
def test_one_warning_for_fit_and_load_model(build, tmp_path):
    """What was told when the routes were found is not told again by a saved table."""
    model = build()
    model.compile(optimizer=Muon(), loss="mse")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(np.zeros((4, 8), "float32"), np.zeros((4, 4), "float32"), verbose=0)
        model.save(tmp_path / "model.keras")
        keras.models.load_model(tmp_path / "model.keras")
    assert len(muon_warnings(caught)) == 1


def test_the_warning_points_at_the_users_line():
    """It is shown with the line that asked for the routes."""
    with pytest.warns(UserWarning, match="Muon leaves") as caught:
        Muon.for_model(model_with_mixer())
    assert caught[0].filename == __file__


DECISIONS = {
    "all to AdamW": {"exclude": r".*mixer/(w|experts)"},
    "by rule": {"routes": {".*/w": "muon", ".*/experts": "adamw"}},
    "by axes": {
        "routes": {
            ".*/w": "muon",
            ".*/experts": {"in_axes": (1,), "out_axes": (2,), "batch_axes": (0,)},
        }
    },
}


@pytest.mark.parametrize("name", DECISIONS)
def test_no_warning_where_the_user_decides(name):
    """Patterns that decide every open variable silence the warning for good."""
    model = model_with_mixer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = Muon.for_model(model, **DECISIONS[name])
        optimizer.build(model.trainable_variables)
    assert all(route.certain for route in optimizer.routes)
    routed = [route.rule for route in optimizer.routes].count("muon")
    assert routed == list(DECISIONS).index(name)


def test_a_part_that_is_decided_is_not_listed():
    """Only what is still open is in the warning."""
    with pytest.warns(UserWarning, match="leaves 1 variables") as caught:
        Muon.for_model(model_with_mixer(), exclude=".*/experts")
    assert "mixer/experts" not in str(caught[0].message)


class Failing(keras.Model):
    """A model whose `call` cannot be followed, so that its head is not known."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(8, name="first", kernel_initializer="zeros")
        self.last = layers.Dense(8, name="last", kernel_initializer="zeros")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.last.build((*input_shape[:-1], 8))

    def call(self, x):
        raise RuntimeError("needs data")


def test_a_head_that_cannot_be_found_is_listed():
    """The layer created last is left to AdamW, and the user is told."""
    model = Failing()
    model.build((None, 8))
    with pytest.warns(UserWarning, match="last/kernel.*perhaps the output head"):
        optimizer = Muon.for_model(model)
    optimizer.build(model.trainable_variables)
    assert [route.rule for route in optimizer.routes] == ["muon"] + ["adamw"] * 3
    assert [route.certain for route in optimizer.routes] == [True, True, False, True]
