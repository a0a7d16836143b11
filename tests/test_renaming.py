"""Whose is what, after loading renamed the variables and some came or went."""

import keras
import numpy as np
import pytest

from keras_muon import Muon
from keras_muon.renaming import paired

X = np.linspace(-1, 1, 64, dtype="float32").reshape(4, 16)
Y = np.ones((4, 8), "float32")

# Names that are there, those that were saved, and where each one is among these.
CASES = {
    "the same": (["m/a", "m/b"], ["m/b", "m/a"], [1, 0]),
    "an outer name less": (["a", "b"], ["m/a", "m/b"], [0, 1]),
    "an outer name more": (["m/a", "m/b"], ["a", "b"], [0, 1]),
    "and one frozen": (["b"], ["m/a", "m/b"], [1]),
    "and one thawed": (["a", "b", "c"], ["m/a", "m/c"], [0, None, 1]),
    "counted anew": (["dense_3", "dense_4"], ["dense", "dense_1"], [0, 1]),
    "counted anew, one fewer": (
        ["b/dense_2", "b/dense_3"],
        ["x", "b/dense_1", "b/dense_2"],
        [None, None],
    ),
    "fewer, all known": (["dense", "dense_2"], ["dense", "dense_1", "dense_2"], [0, 2]),
    "others are not in doubt": (["c", "d_1"], ["c", "d", "e"], [0, None]),
    "another outer name than most": (
        ["a", "b", "c"],
        ["m/a", "m/b", "n/c", "x"],
        [0, 1, None],
    ),
    "nothing alike": (["a"], ["b"], [None]),
    "nothing saved": (["a"], [], [None]),
}


@pytest.mark.parametrize("separator", ["/", "_"])
@pytest.mark.parametrize("case", CASES)
def test_names_are_paired(case, separator):
    wanted, saved, places = CASES[case]
    wanted, saved = (
        [(name.replace("/", separator), (2, 3)) for name in names]
        for names in (wanted, saved)
    )
    assert paired(wanted, saved, separator) == places


def test_shapes_must_agree_where_names_do_not():
    assert paired([("a", (2, 3))], [("m/a", (2, 3))], "/") == [0]
    assert paired([("a", (2, 3))], [("m/a", (3, 2))], "/") == [None]


@keras.saving.register_keras_serializable(package="tests")
class Inner(keras.layers.Layer):
    """Its layers have automatic names, which no file holds."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.parts = [keras.layers.Dense(16, use_bias=False) for _ in range(3)]

    def build(self, shape):
        for part in self.parts:
            part.build((None, 16))

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def dense(units, name):
    return keras.layers.Dense(units, name=name)


def sequential():
    return keras.Sequential([keras.Input((16,)), dense(16, "first"), dense(8, "last")])


def trained(model):
    model.compile(Muon(1e-2), "mse", run_eagerly=True)
    model.fit(X, Y, verbose=0)
    return model


def frozen(model):
    model.get_layer("first").trainable = False


def adapted(model):
    model.get_layer("first").enable_lora(2)


@pytest.mark.parametrize("change", [frozen, adapted])
def test_a_model_changed_after_training_can_be_loaded(change, tmp_path):
    """Loading drops the name of the model from all paths, and one variable is gone."""
    model = trained(sequential())
    momentum = {v.name: v.numpy() for v in model.optimizer.variables}
    change(model)
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="restored in part"):
        again = keras.saving.load_model(tmp_path / "model.keras")
    kept = {v.name: v.numpy() for v in again.optimizer.variables}
    (saved,) = [value for name, value in momentum.items() if "last_bias_mom" in name]
    np.testing.assert_array_equal(kept["last_bias_momentum"], saved)
    assert np.abs(saved).max() > 0
    again.fit(X, Y, verbose=0)


@pytest.mark.parametrize("made_before", [0, 1, 2, 5])
def test_automatic_names_of_another_process_are_no_coincidence(made_before, tmp_path):
    """The second layer must not get the state and the route of the first."""
    keras.backend.clear_session()
    inputs = keras.Input((16,))
    model = keras.Model(inputs, Inner(name="inner")(dense(16, "first")(inputs)))
    model.compile(Muon(1e-2), "mse", run_eagerly=True)
    model.fit(X, np.ones((4, 16), "float32"), verbose=0)
    frozen(model)
    model.save(tmp_path / "model.keras")
    before = momenta_of(model, tail=3)
    keras.backend.clear_session()
    for _ in range(made_before):
        keras.layers.Dense(3)
    with pytest.warns(UserWarning, match="restored in part"):
        again = keras.saving.load_model(tmp_path / "model.keras")
    assert [route.rule for route in again.optimizer.routes] == ["muon", "muon", "adamw"]
    for value, own in zip(momenta_of(again, tail=3), before, strict=True):
        assert not value.any() or np.array_equal(value, own)


def momenta_of(model, tail):
    """The momenta of the last variables, in their order."""
    named = [v for v in model.optimizer.variables if v.name.endswith("momentum")]
    return [keras.ops.convert_to_numpy(v) for v in named][-tail:]


def test_a_quantized_model_can_be_read(tmp_path):
    """Its optimizer is that of variables that are gone; only training is refused."""
    model = trained(sequential())
    for layer in model.layers:
        layer.quantize("int8")
    model.summary(print_fn=lambda text, **_: None)
    model.save_weights(tmp_path / "model.weights.h5")
    assert (tmp_path / "model.weights.h5").stat().st_size > 1000
