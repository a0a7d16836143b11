"""Whoever calls is looked at, and nothing that it held is held by that."""

import inspect
import os
import subprocess
import sys
import weakref

import keras
import pytest

from keras_muon import Muon
from keras_muon.callers import local_variables

BACKEND = keras.backend.backend()
jax_only = pytest.mark.skipif(BACKEND != "jax", reason="the values of JAX are arrays")


def small_model():
    sizes = (8, 4)
    layers = [keras.layers.Dense(n, kernel_initializer="zeros") for n in sizes]
    return keras.Sequential([keras.Input((6,)), *layers])


class Data:
    """Something that can be referred to weakly."""


def look():
    return local_variables(inspect.currentframe().f_back)


def test_all_variables_are_seen():
    """Arguments, variables and those that an inner function shares."""

    def caller(argument, *others, named=3):
        shared = 4
        seen = look()
        return seen, (lambda: shared)

    seen, _ = caller(1, 2)
    expected = {"argument": 1, "others": (2,), "named": 3, "shared": 4}
    assert {name: seen[name] for name in expected} == expected


def test_what_a_caller_deletes_is_gone():
    """It would live until the caller returns."""
    data = Data()
    alive = weakref.ref(data)
    look()
    del data
    assert alive() is None


def test_what_a_caller_asked_for_is_left_to_it():
    """`locals()` may be the same dictionary, which is the caller's."""
    data = Data()
    asked = locals()
    look()
    assert asked["data"] is data


def test_a_module_keeps_its_variables():
    """There the dictionary is where the variables live."""
    namespace = {"look": look}
    exec("kept = 1\nlook()\n", namespace)
    assert namespace["kept"] == 1


@pytest.mark.parametrize(
    "make", [lambda model: Muon(), Muon.for_model], ids=["bare", "for a model"]
)
def test_building_keeps_nothing_alive(make):
    """As with every Keras optimizer; the caller is searched for the model."""
    data, model = Data(), small_model()
    alive = weakref.ref(data)
    make(model).build(model.trainable_variables)
    del data
    assert alive() is None


@jax_only
def test_a_step_on_jax_lets_go_of_what_it_took():
    """Without donation, too: a loop of one's own needs no second copy of the state."""
    import jax

    model = small_model()
    optimizer = Muon.for_model(model)
    optimizer.build(model.trainable_variables)
    own = [jax.numpy.array(v) for v in optimizer.variables]
    weights = [jax.numpy.array(v) for v in model.trainable_variables]
    alive = weakref.ref(weights[0])
    weights, own = jax.jit(optimizer.stateless_apply)(own, weights, weights)
    assert alive() is None


LEAKING = """
import keras, numpy as np
from keras_muon import Muon
hidden, head = keras.layers.Dense(8), keras.layers.Dense(4)
model = keras.Sequential([keras.Input((6,)), hidden, head])
model.compile(Muon(), "mse")
model.fit(np.zeros((8, 6)), np.zeros((8, 4)), verbose=0)
"""


@jax_only
def test_jax_finds_no_leaked_tracers():
    """Its checker takes a tracer that a frame still holds for one that leaked."""
    environment = os.environ | {"JAX_CHECK_TRACER_LEAKS": "1"}
    subprocess.run([sys.executable, "-c", LEAKING], check=True, env=environment)
