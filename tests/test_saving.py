"""Models with Muon: saved, loaded, pickled, found by name; never by another class."""

import json
import pickle

import keras
import numpy as np
import pytest

from keras_muon import Muon, Schedule

layers = keras.layers
schedules = keras.optimizers.schedules

ARGUMENTS = {
    "learning_rate": schedules.ExponentialDecay(0.02, 4, 0.5),
    "adam_learning_rate": schedules.PiecewiseConstantDecay([5], [0.02, 0.005]),
    "schedule": Schedule(coefficients=((1.875, -1.25, 0.375),), steps=4, tail="repeat"),
    "routes": {".*trunk/kernel": "adamw"},
    "exclude": ".*stem/bias",
    "scaling": "mup",
}


@pytest.fixture
def data(rng):
    return (
        rng.normal(size=(16, 8)).astype("float32"),
        rng.normal(size=(16, 3)).astype("float32"),
    )


def functional():
    inputs = keras.Input((8,))
    hidden = layers.Dense(10, activation="tanh", name="stem")(inputs)
    hidden = layers.Dense(10, activation="tanh", name="branch")(hidden)
    hidden = layers.Dense(10, activation="tanh", name="trunk")(hidden)
    return keras.Model(inputs, layers.Dense(3, name="head")(hidden))


def sequential():
    stem, trunk, head = (layers.Dense(n, name=k) for k, n in SIZES.items())
    return keras.Sequential([keras.Input((8,)), stem, trunk, head])


def nested():
    stem, trunk, head = (layers.Dense(n, name=k) for k, n in SIZES.items())
    inputs = keras.Input((8,))
    return keras.Model(inputs, head(keras.Sequential([stem, trunk])(inputs)))


@keras.saving.register_keras_serializable("test_saving")
class Subclassed(keras.Model):
    """Layers without names of their own: Keras numbers them anew on loading."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.stem = layers.Dense(10)
        self.trunk = layers.Dense(10, name="trunk")
        self.head = keras.Sequential([layers.Dense(10), layers.Dense(3)])

    def call(self, x):
        return self.head(self.trunk(self.stem(x)))


SIZES = {"stem": 10, "trunk": 10, "head": 3}
KINDS = (functional, sequential, nested, Subclassed)


def compiled(optimizer, kind=functional):
    model = kind()
    model.compile(optimizer=optimizer, loss="mse")
    return model


def trained(model, data):
    model.fit(*data, batch_size=4, epochs=1, shuffle=False, verbose=0)
    return model


def state(model):
    """Every number that training depends on."""
    everything = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(v.value) for v in everything]


def assert_same_state(first, second):
    for one, other in zip(state(first), state(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_continues_after_loading_as_if_never_stopped(tmp_path, data):
    """Weights, momentum, moments, counters and rates: bit for bit, on this backend.

    With the weights alone, training goes elsewhere: by 1.1e-2 or more in every weight.
    """
    model = trained(compiled(Muon(**ARGUMENTS)), data)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    forgetful = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    forgetful.compile(optimizer=Muon(**ARGUMENTS), loss="mse")
    assert type(loaded.optimizer) is Muon
    assert loaded.optimizer.routes == model.optimizer.routes
    assert_same_state(loaded, model)
    assert_same_state(trained(loaded, data), trained(model, data))
    pairs = zip(model.weights, trained(forgetful, data).weights, strict=True)
    assert min(np.abs(one.numpy() - other.numpy()).max() for one, other in pairs) > 1e-3


def stepped(optimizer, kind=functional):
    """A compiled model after one step along gradients of a half."""
    model = compiled(optimizer, kind)
    model(np.ones((1, 8), "float32"))
    variables = model.trainable_variables
    model.optimizer.build(variables)
    model.optimizer.apply([keras.ops.ones(v.shape) * 0.5 for v in variables])
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_keeps_its_routes_and_state(tmp_path, kind):
    """Keras may rename variables on loading; each keeps its rule and its state."""
    model = stepped(Muon(0.5, routes={".*trunk/kernel": "adamw"}), kind)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    rules = [route.rule for route in model.optimizer.routes]
    assert [route.rule for route in loaded.optimizer.routes] == rules
    assert "muon" in rules
    assert_same_state(loaded, model)


def test_a_compiled_model_can_be_pickled():
    """As processes and schedulers of experiments do."""
    model = stepped(Muon(**ARGUMENTS))
    again = pickle.loads(pickle.dumps(model))
    assert again.optimizer.routes == model.optimizer.routes
    assert again.optimizer.get_config() == model.optimizer.get_config()
    assert_same_state(again, model)


def test_keras_finds_muon_by_name():
    """The registered name is enough, also for compile."""
    assert type(keras.optimizers.get("keras_muon>Muon")) is Muon
    assert type(compiled("keras_muon>Muon").optimizer) is Muon


def test_keras_finds_muon_by_its_serialized_form():
    """Its own Muon has the same class name and is not taken instead."""
    optimizer = Muon(0.5, momentum=0.75, schedule="cubic")
    plain = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    assert plain["registered_name"] == "keras_muon>Muon"
    for again in (
        keras.optimizers.deserialize(plain),
        keras.optimizers.get(plain),
        keras.saving.deserialize_keras_object(plain),
    ):
        assert type(again) is Muon
        assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("built", [False, True], ids=["unbuilt", "built"])
def test_the_muon_of_keras_refuses_our_config(built):
    """A loader without this package must fail, not train with another rule."""
    optimizer = Muon()
    if built:
        optimizer.build([keras.Variable(np.ones(4, "float32"), name="bias")])
    with pytest.raises(ValueError, match=r"not recognized.*scaling"):
        keras.optimizers.Muon.from_config(optimizer.get_config())


def test_our_muon_refuses_the_config_of_keras():
    """And says which argument is called otherwise here."""
    config = keras.optimizers.Muon().get_config()
    with pytest.raises(TypeError, match="`epsilon`; here it is `adam_epsilon`"):
        Muon.from_config(config)
