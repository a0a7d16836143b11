"""Real models: every hidden matrix goes to Muon in the view that its layer has.

Twice independently: routes against tables written from the papers (real_models.py),
and views against what the layers do to basis vectors (prescribed_kernels.py).
"""

import re

import numpy as np
import pytest
from layer_maps import kind_of, linear_maps
from prescribed_kernels import TOLERANCE, error, prescribed
from real_catalogue import MODELS, build

from keras_muon import Muon

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    # keras-hub's T5 attention ignores the mask of its embedding.
    pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning"),
    pytest.mark.filterwarnings(
        # Keras on torch, under NumPy 2, in convert_to_numpy.
        "ignore:__array__ implementation doesn't accept a copy keyword"
    ),
]

every_model = pytest.mark.parametrize("name", MODELS)


def routes_of(model):
    optimizer = Muon.for_model(model)
    optimizer.build(model.trainable_variables)
    return optimizer.routes


def found_in(route):
    """What the table of expectations would hold for a route."""
    return route.view.matrix_shape if route.rule == "muon" else route.reason


@every_model
def test_variables_go_where_the_paper_says(name):
    """Batch, fan-in and fan-out of every hidden matrix; the reason for all others."""
    case, _ = build(name)
    unused = set(case.expected)
    for route in routes_of(case.model):
        patterns = [p for p in case.expected if re.fullmatch(p, route.path)]
        assert len(patterns) == 1, f"{route.path} matches {patterns}"
        assert (route.path, found_in(route)) == (
            route.path,
            case.expected[patterns[0]],
        )
        unused -= set(patterns)
    assert unused == set()


def signature(layer, view):
    """Layers that differ in nothing but the extents of their kernels."""
    return (
        kind_of(layer),
        getattr(layer, "equation", None),
        getattr(layer, "groups", None),
        view.in_axes,
        view.out_axes,
        view.batch_axes,
    )


@every_model
def test_views_are_what_the_layers_do(name, rng):
    """The smallest kernel of every kind of layer in the model, inside its layer."""
    case, owners = build(name)
    smallest = {}
    pairs = zip(case.model.trainable_variables, routes_of(case.model), strict=True)
    for variable, route in pairs:
        if route.rule == "muon":
            layer = owners[id(variable)]
            assert kind_of(layer), f"{type(layer).__name__} is never probed"
            key = signature(layer, route.view)
            before = smallest.setdefault(key, (layer, variable, route.view))
            if np.prod(route.shape) < np.prod(before[1].shape):
                smallest[key] = (layer, variable, route.view)
    assert smallest
    for layer, variable, view in smallest.values():
        kernel, lengths = prescribed(view, rng)
        variable.assign(kernel)
        assert error(view, lengths, linear_maps(layer, variable)) < TOLERANCE
