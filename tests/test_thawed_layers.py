"""Layers that are frozen or thawed after their routes were decided."""

import json

import keras
import numpy as np
import pytest
from routed_models import BY_LAYERS, muon_paths, small_model

from keras_muon import Muon


def test_layers_frozen_after_for_model():
    """The routes of what remains stand, and patterns of frozen layers do no harm."""
    model = small_model()
    optimizer = Muon.for_model(model, exclude="hidden/kernel")
    model.get_layer("hidden").trainable = False
    optimizer.build(model.trainable_variables)
    assert muon_paths(optimizer) == ["query/kernel"]
    assert len(optimizer.routes) == len(model.trainable_variables) == 3


def test_layers_thawed_after_for_model():
    """Variables that the table does not know are read from the model."""
    model = small_model()
    model.get_layer("hidden").trainable = False
    optimizer = Muon.for_model(model)
    model.get_layer("hidden").trainable = True
    optimizer.build(model.trainable_variables)
    assert muon_paths(optimizer) == BY_LAYERS


BEFOREHAND = {"query/kernel": "muon", ".*/kernel": "adamw"}


def by_the_table(model):
    return Muon.for_model(model, routes=BEFOREHAND)


def by_a_copy(model):
    """Of an optimizer that was built for what was not frozen then."""
    optimizer = Muon(routes=BEFOREHAND)
    optimizer.build(model.trainable_variables)
    config = json.loads(json.dumps(optimizer.get_config()))
    return Muon.from_config(config)


@pytest.mark.parametrize("made", [by_the_table, by_a_copy])
def test_patterns_decide_for_layers_thawed_later_too(made):
    """As `exclude` does; the layers alone would say Muon, see the test above."""
    model = small_model()
    model.get_layer("hidden").trainable = False
    optimizer = made(model)
    model.get_layer("hidden").trainable = True
    optimizer.build(model.trainable_variables)
    assert muon_paths(optimizer) == []
    (hidden,) = [r for r in optimizer.routes if r.path == "hidden/kernel"]
    assert hidden.reason == "by the user: .*/kernel"


only_on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="on the others Keras steps variables"
)


@only_on_jax
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss_scale"])
@pytest.mark.parametrize("word", ["frozen", "thawed"])
@pytest.mark.parametrize("compiles_again", [False, True])
def test_fit_with_another_set_of_layers_is_refused_before_weights_are_lost(
    word, compiles_again, scaled
):
    """Keras would take all values out of the model, and fail: none came back."""
    layers = [keras.layers.Dense(8, name=name) for name in ("first", "hidden", "head")]
    model = keras.Sequential([keras.Input((8,)), *layers])
    hidden = model.get_layer("hidden")
    hidden.trainable = word == "frozen"
    optimizer = Muon()
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    x = np.ones((4, 8), "float32")
    model.compile(optimizer, "mse")
    model.fit(x, x, verbose=0)
    before = model.get_weights()
    hidden.trainable = word == "thawed"
    if compiles_again:
        model.compile(optimizer, "mse")
    for train in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match=f"hidden/kernel' was {word}. Compile"):
            train(x, x)
    np.testing.assert_equal(model.get_weights(), before)
    model.compile(Muon.for_model(model), "mse")
    model.fit(x, x, verbose=0)
    assert any(
        np.abs(value - old).max() > 1e-5
        for value, old in zip(model.get_weights(), before, strict=True)
    )
