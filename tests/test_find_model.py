"""Custom loops: the model is found among the callers, and nothing is kept alive."""

import gc
import warnings
import weakref

import keras
import pytest

from keras_muon import Muon
from keras_muon.find_model import find_model, may_compile_with_xla

layers = keras.layers


def dense(name, units=8):
    """A Dense layer without random values: they cost JAX a compilation per shape."""
    return layers.Dense(units, name=name, kernel_initializer="zeros")


def small_model():
    """One hidden matrix and a head."""
    return keras.Sequential([keras.Input((6,)), dense("hidden"), dense("head", 4)])


def rules(optimizer):
    return [route.rule for route in optimizer.routes]


WITH_MODEL = ["muon", "adamw", "adamw", "adamw"]
WITHOUT_MODEL = ["adamw"] * 4


def test_model_in_a_local_variable():
    """A loop in a function: its local variables know the model."""
    model, optimizer = small_model(), Muon()
    gradients = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    optimizer.apply(gradients, model.trainable_variables)
    reference = Muon.for_model(model)
    reference.build(model.trainable_variables)
    assert optimizer.routes == reference.routes
    assert rules(optimizer) == WITH_MODEL


def test_model_in_a_caller():
    """The step is a function of its own; the caller has the model."""

    def step(optimizer, variables):
        optimizer.build(variables)

    model, optimizer = small_model(), Muon()
    step(optimizer, model.trainable_variables)
    assert rules(optimizer) == WITH_MODEL


def test_model_in_a_global_variable():
    """A script: the model is a global variable of the module that steps."""
    script = "def step(optimizer):\n    optimizer.build(model.trainable_variables)\n"
    namespace, optimizer = {"model": small_model()}, Muon()
    exec(script, namespace)
    namespace["step"](optimizer)
    assert rules(optimizer) == WITH_MODEL


def test_model_that_trains_itself():
    """A method of the model: `self` is the model."""

    class Trained(keras.Sequential):
        def step(self, optimizer):
            optimizer.build(self.trainable_variables)

    built, optimizer = [Trained([keras.Input((6,)), dense("a"), dense("b", 4)])], Muon()
    built[0].step(optimizer)
    assert rules(optimizer) == WITH_MODEL


def test_other_models_are_not_taken():
    """A model that owns only some of the variables, or none, is passed over."""
    other, model = small_model(), small_model()
    part = keras.Sequential([model.layers[0]])
    assert find_model(model.trainable_variables) is model
    assert find_model(other.trainable_variables) is other
    del part


def test_the_smallest_owner_is_taken():
    """Beside a model that contains it, the model itself is the better answer."""
    inner = small_model()
    outer = keras.Sequential([inner, dense("head", 4)])
    assert find_model(inner.trainable_variables) is inner
    assert find_model(outer.trainable_variables) is outer


def test_a_nearer_function_decides():
    """What the nearest function knows comes before a smaller model further out."""

    def step(outer, variables):
        return find_model(variables) is outer

    inner = small_model()
    assert step(keras.Sequential([inner, dense("head", 4)]), inner.trainable_variables)


def test_no_variables_no_model():
    """Without variables there is nothing to recognise a model by."""
    model = small_model()
    assert find_model([]) is None
    assert model.built


class Proxy:
    """An object that lies about its class, and fails when it is asked."""

    @property
    def __class__(self):
        raise RuntimeError("asked for the class of a proxy")


def test_objects_that_do_not_want_to_be_looked_at():
    """Local variables that are no models are not touched."""
    proxy, model = Proxy(), small_model()
    assert find_model(model.trainable_variables) is model
    assert type(proxy) is Proxy


def test_a_part_of_a_model_that_has_no_call():
    """Two networks in one model: each is seen as it is alone, its head included."""

    class Adversaries(keras.Model):
        def __init__(self):
            super().__init__()
            self.generator, self.critic = small_model(), small_model()

        def prepare(self, optimizer):
            optimizer.build(self.critic.trainable_variables)

    models, optimizer = [Adversaries()], Muon()
    models[0].prepare(optimizer)
    reference = Muon.for_model(models[0].critic)
    reference.build(models[0].critic.trainable_variables)
    assert rules(reference) == WITH_MODEL
    assert optimizer.routes == reference.routes


def mixed_variables():
    """Variables of a model that is gone."""
    inputs = keras.Input((None,), dtype="int32")
    zeros = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}
    x = layers.Embedding(9, 4, name="words", embeddings_initializer="zeros")(inputs)
    x = layers.LSTM(4, name="lstm", **zeros)(x)
    return keras.Model(inputs, dense("head", 4)(x)).trainable_variables


def test_without_a_model_one_warning_lists_what_is_not_proven():
    """Kernels may be heads, so they go to AdamW; recurrent ones cannot be heads."""
    optimizer = Muon()
    with pytest.warns(UserWarning, match="without a proof") as caught:
        optimizer.build(mixed_variables())
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "leaves 2 variables" in text
    listed = [route.path for route in optimizer.routes if route.path in text]
    assert listed == ["lstm/lstm_cell/kernel", "head/kernel"]
    assert "Muon.for_model(model)" in text
    found = {route.path: (route.rule, route.certain) for route in optimizer.routes}
    assert found == {
        "words/embeddings": ("adamw", True),
        "lstm/lstm_cell/kernel": ("adamw", False),
        "lstm/lstm_cell/recurrent_kernel": ("muon", True),
        "lstm/lstm_cell/bias": ("adamw", True),
        "head/kernel": ("adamw", False),
        "head/bias": ("adamw", True),
    }


def test_without_a_model_the_users_word_is_enough():
    """Patterns that decide every open variable leave nothing to warn of."""
    optimizer = Muon(routes={".*_cell/kernel": "muon"}, exclude="head/kernel")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.build(mixed_variables())
    assert [route.rule for route in optimizer.routes].count("muon") == 2
    assert all(route.certain for route in optimizer.routes)


class Marker:
    """Something that can be seen to die."""


@pytest.fixture
def _without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_without_collector")
def test_frames_are_not_kept():
    """What the calling function held dies with it, without the collector."""

    def loop(optimizer):
        marker, model = Marker(), small_model()
        optimizer.build(model.trainable_variables)
        return weakref.ref(marker)

    optimizer = Muon()
    assert loop(optimizer)() is None
    assert rules(optimizer) == WITH_MODEL


def test_the_model_is_not_kept():
    """The optimizer holds variables; the model may go while it lives."""

    def loop(optimizer):
        model = small_model()
        optimizer.build(model.trainable_variables)
        return weakref.ref(model)

    optimizer = Muon()
    model = loop(optimizer)
    gc.collect()
    assert model() is None
    assert rules(optimizer) == WITH_MODEL


@pytest.mark.parametrize("jit", [True, False])
def test_a_compiled_model_tells_whether_xla_compiles(jit):
    """As in `fit`, where the model is in a calling function; TensorFlow has a choice.

    What JAX traces it compiles with XLA, whatever Keras was asked to compile.
    """
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", jit_compile=jit)
    expected = jit or keras.backend.backend() != "tensorflow"
    assert may_compile_with_xla(model.trainable_variables) is expected


def test_without_a_compiled_model_xla_may_compile():
    """A loop of one's own can do either, so the slower surprise is avoided."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    assert may_compile_with_xla(model.trainable_variables) is True
    assert may_compile_with_xla([keras.Variable([1.0])]) is True
