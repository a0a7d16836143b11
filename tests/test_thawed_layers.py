"""Layers that are frozen or thawed after their routes were decided."""

import json

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
