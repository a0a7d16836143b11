"""Steps in place on torch are those of other backends, and only where allowed."""

import keras
import numpy as np
import pytest
import torch

from keras_muon import Muon, planning, steps

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only torch steps in place"
)

SHAPES = {"a": (12, 20), "b": (12, 20), "tall": (24, 8), "gain": (20,), "bias": (8,)}

# Largest difference seen 1.2e-7; a step of either rule moves an entry by 1e-3 or more.
TOLERANCE = 2e-6

SETTINGS = {
    "by default": {},
    "heavy ball": {"nesterov": False, "momentum": 0.5},
    "no decay": {"weight_decay": None},
    "own decay": {"adam_weight_decay": 0.3, "adam_learning_rate": 2e-3},
    "alone": {"batched": False},
    "rate of zero": {"learning_rate": 0.0},
    "in one bucket, in turn": {"batched": True},
}


def variables(dtype="float32"):
    rng = np.random.default_rng(3)
    return [
        keras.Variable(rng.normal(size=shape), dtype=dtype, name=name)
        for name, shape in SHAPES.items()
    ]


def stepped(count=4, dtype="float32", **settings):
    """Weights and optimizer after some steps; what has two axes goes to Muon."""
    settings = {"learning_rate": 1e-2, "weight_decay": 0.1} | settings
    routes = {"a|b|tall": "muon", "gain|bias": "adamw"}
    weights, rng = variables(dtype), np.random.default_rng(4)
    optimizer = Muon(routes=routes, **settings)
    optimizer.build(weights)
    for _ in range(count):
        optimizer.apply(
            [
                keras.ops.convert_to_tensor(rng.normal(size=w.shape), dtype)
                for w in weights
            ]
        )
    return [keras.ops.convert_to_numpy(w) for w in weights], optimizer


@pytest.mark.parametrize("name", SETTINGS)
def test_both_forms_agree(monkeypatch, name):
    """Weights and state; the form without writing in place is that of all backends."""
    if "in turn" in name:
        monkeypatch.setattr(planning, "LARGEST_STACKED_ON_CPU", 100)
    weights, optimizer = stepped(**SETTINGS[name])
    loops = {plan.loop for _, plan in optimizer.plans}
    assert ("apart" in loops) is ("in turn" in name)
    monkeypatch.setattr(steps, "writes_in_place", lambda *_: False)
    expected, other = stepped(**SETTINGS[name])
    for weight, wanted in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight, wanted, rtol=0, atol=TOLERANCE)
    for state, wanted in zip(optimizer.variables, other.variables, strict=True):
        np.testing.assert_allclose(state.numpy(), wanted.numpy(), rtol=0, atol=1e-5)


def test_a_step_more_would_be_seen():
    """The comparison above can fail: every weight moves."""
    for weight, later in zip(stepped()[0], stepped(count=5)[0], strict=True):
        assert np.abs(later - weight).max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"nonfinite": "skip"}, False),
        ({"dtype": "bfloat16"}, False),
        ({"dtype": "float64"}, True),
    ],
    ids=str,
)
def test_where_steps_are_in_place(monkeypatch, settings, expected):
    """Not where a step may be skipped, nor for weights with master copies."""
    answers = []
    real = steps.writes_in_place

    def noted(*arguments):
        answers.append(real(*arguments))
        return answers[-1]

    monkeypatch.setattr(steps, "writes_in_place", noted)
    stepped(count=1, **settings)
    assert answers
    assert set(answers) == {expected}


def test_stateless_steps_change_nothing():
    """`stateless_apply` returns new values; the given ones, and all variables, stay."""
    weights = variables()
    optimizer = Muon(1e-2, routes={"a|b|tall": "muon", "gain|bias": "adamw"})
    optimizer.build(weights)
    given = [w.value for w in weights]
    state = [v.value for v in optimizer.variables]
    before = [keras.ops.copy(value) for value in (*given, *state)]
    gradients = [keras.ops.ones(w.shape) for w in weights]
    new, new_state = optimizer.stateless_apply(state, gradients, given)
    for value, old in zip((*given, *state), before, strict=True):
        np.testing.assert_array_equal(value.detach().numpy(), old.detach().numpy())
    for value, old in zip(new, before, strict=False):
        assert np.abs((value - old).detach().numpy()).max() > 1e-4
    assert len(new_state) == len(state)
    assert not optimizer.is_stateless


@pytest.mark.parametrize("mapped", [0, 2, None], ids=["none", "some", "all"])
def test_a_scope_gets_the_new_values(mapped):
    """Whether it had values of the variables or not; what is outside of it stays."""
    weights = variables()
    optimizer = Muon(1e-2, weight_decay=0.1, routes={"^[ab]$|tall": "muon"})
    optimizer.build(weights)
    kept = (*optimizer.variables, *weights)
    before = [v.numpy().copy() for v in kept]
    given = [(v, v.value.detach().clone()) for v in weights[:mapped]]
    gradients = [keras.ops.ones(w.shape) for w in weights]
    with keras.StatelessScope(given) as scope:
        assert optimizer.is_stateless
        optimizer.apply(gradients, weights)
        inside = [scope.get_current_value(v).detach().numpy() for v in weights]
    assert not optimizer.is_stateless
    np.testing.assert_equal([v.numpy() for v in kept], before)
    for variable, value in given:
        np.testing.assert_array_equal(value.numpy(), variable.numpy())
    optimizer.apply(gradients, weights)
    for new, weight in zip(inside, weights, strict=True):
        np.testing.assert_allclose(weight.numpy(), new, rtol=0, atol=TOLERANCE)


def test_gradients_are_left_alone():
    """What the caller passes is still his afterwards."""
    weights = variables()
    optimizer = Muon(1e-2, routes={"a|b|tall": "muon", "gain|bias": "adamw"})
    optimizer.build(weights)
    gradients = [keras.ops.ones(w.shape) for w in weights]
    optimizer.apply(gradients)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient.numpy(), 1.0)


def test_a_step_of_other_variables_is_traced_in_one_graph():
    """What is found out about their bucket, in the trace, breaks no graph."""
    weights, optimizer = variables(), Muon(1e-2, routes={"^[ab]$|tall": "muon"})
    gradients = [keras.ops.ones(w.shape) for w in weights]
    optimizer.apply(gradients, weights)
    before = [w.numpy().copy() for w in weights]

    def step(given):
        optimizer.apply(list(given), weights[1:])

    torch.compile(step, backend="eager", fullgraph=True)(gradients[1:])
    moved = [
        np.abs(w.numpy() - old).max() > 1e-4
        for w, old in zip(weights, before, strict=True)
    ]
    assert moved == [False, True, True, True, True]
