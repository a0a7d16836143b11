"""Six steps of Muon equal closed sums in float64: each scaling, each kind of kernel."""

import keras
import numpy as np
import pytest
from trajectory_oracle import muon_run

from keras_muon import MatrixView, Muon, Route

STEPS = 6
RATE = 0.05

# Largest error seen on any backend: 8.5e-7. The smallest effect that must be noticed, a
# rate that is 1% off, moves an entry of every kernel by 1.1e-3 or more.
TOLERANCE = 1e-5

# Three shapes of matrices in ten kinds of kernels: in, out and batch axes. Kernels of
# several matrices come first: those after them must start where they end.
VIEWS = {
    "experts": MatrixView((2, 8, 20), (1,), (2,), (0,)),
    "attention_per_head": MatrixView((12, 3, 12), (0,), (2,), (1,)),
    "grouped_convolution": MatrixView(
        (5, 4, 16), (0, 1), (3,), (2,), factors=(5, 4, 2, 8)
    ),
    "wide": MatrixView((8, 20), (0,), (1,)),
    "tall": MatrixView((20, 8), (0,), (1,)),
    "square": MatrixView((12, 12), (0,), (1,)),
    "attention_query": MatrixView((8, 4, 5), (0,), (1, 2)),
    "attention_output": MatrixView((4, 5, 8), (0, 1), (2,)),
    "convolution": MatrixView((2, 2, 5, 8), (0, 1, 2), (3,)),
    "transposed_convolution": MatrixView((2, 2, 5, 8), (3,), (0, 1, 2)),
}

SETTINGS = {
    "momentum": 0.9,
    "nesterov": True,
    "scaling": "moonlight",
    "weight_decay": 0.1,
}


@pytest.fixture
def weights(rng):
    return {n: rng.normal(size=v.shape).astype("float32") for n, v in VIEWS.items()}


@pytest.fixture
def gradients(rng):
    """For every kernel the gradients of all steps, of very different sizes."""
    sizes = (1.0, 3.0, 0.5, 2.0, 1.0, 1.5)
    return {
        n: [(size * rng.normal(size=v.shape)).astype("float32") for size in sizes]
        for n, v in VIEWS.items()
    }


def optimized(optimizer, weights, gradients, steps=STEPS):
    """The weights after some steps of an optimizer."""
    variables = [keras.Variable(w, name=name) for name, w in weights.items()]
    optimizer.build(variables)
    for step in range(steps):
        now = [keras.ops.convert_to_tensor(gradients[v.name][step]) for v in variables]
        optimizer.apply(now)
    return {v.name: keras.ops.convert_to_numpy(v.value) for v in variables}


def expected(weights, gradients, weight_decay, rates=RATE, **settings):
    """The oracle's answer for the same run."""
    return {
        name: muon_run(
            weights[name],
            gradients[name],
            (view.batch_axes, view.in_axes, view.out_axes),
            factors=view.factors,
            rates=rates,
            decay=weight_decay or 0.0,
            **settings,
        )
        for name, view in VIEWS.items()
    }


def distances(actual, wanted):
    return {name: np.abs(actual[name] - wanted[name]).max() for name in wanted}


def table():
    return [Route(name, view.shape, "muon", view) for name, view in VIEWS.items()]


@pytest.mark.parametrize("nesterov", [True, False], ids=["nesterov", "heavy_ball"])
@pytest.mark.parametrize("momentum", [0.9, 0.95], ids="momentum={}".format)
@pytest.mark.parametrize("scaling", ["naive", "original", "mup", "moonlight"])
def test_six_steps_equal_the_oracle(weights, gradients, scaling, momentum, nesterov):
    """Every kind of kernel follows the published rule, weight decay included."""
    settings = SETTINGS | {
        "scaling": scaling,
        "momentum": momentum,
        "nesterov": nesterov,
    }
    optimizer = Muon(RATE, routes=table(), **settings)
    actual = optimized(optimizer, weights, gradients)
    wrong = distances(actual, expected(weights, gradients, **settings))
    assert max(wrong.values()) < TOLERANCE, wrong


OTHER_SETTINGS = {
    "no_decay": {"weight_decay": None},
    "decay_of_zero": {"weight_decay": 0.0},
    "rms": {"rms": 0.5},
    "schedule": {"schedule": "jordan"},
    "momentum_of_zero": {"momentum": 0.0},
}


@pytest.mark.parametrize("other", OTHER_SETTINGS.values(), ids=OTHER_SETTINGS)
def test_other_settings_equal_the_oracle(weights, gradients, other):
    """Each remaining argument of the rule does what the oracle does with it."""
    settings = SETTINGS | other
    actual = optimized(Muon(RATE, routes=table(), **settings), weights, gradients)
    wrong = distances(actual, expected(weights, gradients, **settings))
    assert max(wrong.values()) < TOLERANCE, wrong


CHANGES = {
    "momentum": {"momentum": 0.95},
    "nesterov": {"nesterov": False},
    "scaling": {"scaling": "mup"},
    "decay": {"weight_decay": 0.09},
    "rate": {"rates": 0.99 * RATE},
    "rms": {"rms": 0.22},
    "schedule": {"schedule": "jordan"},
}


def test_the_comparison_notices_each_changed_setting(weights, gradients):
    """An oracle with one other setting is far from the run, for every kernel."""
    actual = optimized(Muon(RATE, routes=table(), **SETTINGS), weights, gradients)
    for name, change in CHANGES.items():
        wrong = distances(actual, expected(weights, gradients, **SETTINGS | change))
        assert min(wrong.values()) > 100 * TOLERANCE, (name, wrong)


def test_the_comparison_notices_a_missing_step(weights, gradients):
    """Five steps are not six."""
    optimizer = Muon(RATE, routes=table(), **SETTINGS)
    actual = optimized(optimizer, weights, gradients, steps=STEPS - 1)
    wrong = distances(actual, expected(weights, gradients, **SETTINGS))
    assert min(wrong.values()) > 1000 * TOLERANCE, wrong


def test_patterns_lead_to_the_same_run_as_a_table(weights, gradients):
    """`routes` as a dictionary of patterns decides the same views."""
    patterns = {
        "wide|tall|square": "muon",
        "attention_query": {"in_axes": (0,), "out_axes": (1, 2)},
    } | {name: view for name, view in VIEWS.items() if len(view.shape) > 2}
    by_pattern = optimized(Muon(RATE, routes=patterns), weights, gradients)
    by_table = optimized(Muon(RATE, routes=table()), weights, gradients)
    for name in VIEWS:
        np.testing.assert_array_equal(by_pattern[name], by_table[name])


def test_gradients_of_any_scale_give_the_same_step(weights, gradients):
    """Only the direction of a gradient counts: 1e-12 times as large, the same run."""
    small = {n: [np.float32(1e-12) * g for g in all_] for n, all_ in gradients.items()}
    optimizer = Muon(RATE, routes=table(), **SETTINGS)
    actual = optimized(optimizer, weights, small)
    wrong = distances(actual, expected(weights, gradients, **SETTINGS))
    assert max(wrong.values()) < TOLERANCE, wrong
