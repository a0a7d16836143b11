"""Under `compile` and `fit`, a bare `Muon()` is as good as `Muon.for_model(model)`."""

import gc
import warnings
import weakref

import keras
import numpy as np
import pytest

from keras_muon import Muon

layers = keras.layers
X = np.linspace(-1, 1, 32, dtype="float32").reshape(4, 8)
Y = np.zeros((4, 4), "float32")


def dense(name, units=8):
    """A Dense layer without random values: they cost JAX a compilation per shape."""
    return layers.Dense(units, name=name, kernel_initializer="zeros")


def functional():
    inputs = keras.Input((8,))
    x = layers.Reshape((2, 4))(inputs)
    x = layers.EinsumDense(
        "btd,ndh->btnh", (2, 2, 4), name="query", kernel_initializer="zeros"
    )(x)
    return keras.Model(inputs, dense("head", 4)(layers.Flatten()(x)))


def sequential():
    return keras.Sequential([keras.Input((8,)), dense("hidden"), dense("head", 4)])


def nested():
    inputs = keras.Input((8,))
    inner = keras.Sequential([keras.Input((8,)), dense("hidden"), dense("head")])
    return keras.Model(inputs, dense("head", 4)(inner(inputs)))


@keras.saving.register_keras_serializable(package="keras_muon_tests")
class HeadFirst(keras.Model):
    """A subclassed model; names and order of its layers say nothing."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.a = dense("a", 4)
        self.b = dense("b")

    def build(self, input_shape):
        self.b.build(input_shape)
        self.a.build((*input_shape[:-1], 8))

    def call(self, x):
        return self.a(self.b(x))


# Rules in the order of the variables, written by hand.
MODELS = {
    functional: ["muon", "adamw", "adamw"],
    sequential: ["muon", "adamw", "adamw", "adamw"],
    nested: ["muon", "adamw", "muon", "adamw", "adamw", "adamw"],
    HeadFirst: ["adamw", "adamw", "muon", "adamw"],
}

all_models = pytest.mark.parametrize("build", MODELS, ids=lambda b: b.__name__)


def fitted(model, optimizer):
    model.compile(optimizer=optimizer, loss="mse")
    model.fit(X, Y, batch_size=4, verbose=0)
    return model


def reference_routes(model):
    optimizer = Muon.for_model(model)
    optimizer.build(model.trainable_variables)
    return optimizer.routes


@all_models
def test_fit_reaches_the_same_routes(build):
    """The model is found from within `fit`, on the backend that traces it."""
    model, optimizer = build(), Muon()
    fitted(model, optimizer)
    assert optimizer.routes == reference_routes(model)
    assert [route.rule for route in optimizer.routes] == MODELS[build]


def test_fit_through_a_loss_scale():
    """The optimizer inside another one finds the model as well."""
    model, optimizer = sequential(), Muon()
    fitted(model, keras.optimizers.LossScaleOptimizer(optimizer))
    assert optimizer.routes == reference_routes(model)
    assert [route.rule for route in optimizer.routes] == MODELS[sequential]


def test_train_on_batch():
    """Other ways into training build the optimizer in other functions."""
    model, optimizer = sequential(), Muon()
    model.compile(optimizer=optimizer, loss="mse")
    model.train_on_batch(X, Y)
    assert optimizer.routes == reference_routes(model)


def test_model_without_input_shape():
    """A model that is built by `fit` itself, after its optimizer was created."""
    model, optimizer = keras.Sequential([dense("hidden"), dense("head", 4)]), Muon()
    fitted(model, optimizer)
    assert optimizer.routes == reference_routes(model)
    assert [route.rule for route in optimizer.routes] == MODELS[sequential]


def what_matters(routes):
    """Rule, view and shape: paths change when a model is loaded."""
    return [(route.rule, route.view, route.shape) for route in routes]


@all_models
def test_load_model_keeps_the_routes(build, tmp_path):
    """A saved model trains on with the routes it had, and they are still right."""
    model = fitted(build(), Muon())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert what_matters(loaded.optimizer.routes) == what_matters(model.optimizer.routes)
    assert what_matters(loaded.optimizer.routes) == what_matters(
        reference_routes(loaded)
    )


# Keras builds every optimizer on loading, and says so of each that was not built.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@all_models
def test_load_model_that_was_never_fitted(build, tmp_path):
    """Without routes in the file they are found when the loaded model is built."""
    model = build()
    if not model.built:
        model.build((None, 8))
    model.compile(optimizer=Muon(), loss="mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert what_matters(loaded.optimizer.routes) == what_matters(
        reference_routes(model)
    )


def test_a_table_is_not_taken_in_order_by_other_layers():
    """Loading renames models and counts automatic names anew, but no named layer."""
    inputs = keras.Input((8,))
    chain = keras.Model(inputs, dense("b")(dense("a")(inputs)))
    heads = keras.Model(inputs, [dense("x")(inputs), dense("y")(inputs)])
    table = reference_routes(chain)
    with pytest.raises(ValueError, match="another model"):
        Muon(routes=table).build(heads.trainable_variables)


def test_load_model_keeps_the_users_patterns(tmp_path):
    """What a pattern decided is in the file."""
    model = fitted(functional(), Muon(routes={"query/kernel": "adamw"}))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [route.rule for route in loaded.optimizer.routes] == ["adamw"] * 3


def test_fit_warns_of_nothing():
    """A model of Keras' own layers leaves nothing open."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted(functional(), Muon())
    assert not [w for w in caught if "Muon leaves" in str(w.message)]


class Marker:
    """Something that can be seen to die."""


def test_fit_keeps_nothing_of_the_caller():
    """A local variable that is deleted after `fit` is gone, without the collector."""
    marker, model = Marker(), sequential()
    reference = weakref.ref(marker)
    model.compile(optimizer=Muon(), loss="mse")
    gc.collect()
    gc.disable()
    try:
        model.fit(X, Y, verbose=0)
        del marker
        assert reference() is None
    finally:
        gc.enable()
