"""Weight decay, who is excluded from it, and constraints."""

import keras
import numpy as np
import pytest

from keras_muon import Muon
from keras_muon.writing import move

SHAPES = {"first": (6, 4), "second": (6, 4), "gain": (5,)}
ROUTES = {"first|second": "muon", "gain": "adamw"}
RATE = 0.5

# Largest error seen: 1.2e-7, float32 rounding; the smallest decay below takes 1.25 % of
# a weight.
TOLERANCE = 1e-6


@pytest.fixture
def variables(rng):
    return [
        keras.Variable(rng.standard_normal(shape), name=name, dtype="float32")
        for name, shape in SHAPES.items()
    ]


def kept_shares(optimizer, variables):
    """Return what a step with zero gradients leaves of each variable, as a factor."""
    before = [keras.ops.convert_to_numpy(v).copy() for v in variables]
    optimizer.apply([keras.ops.zeros(v.shape) for v in variables], variables)
    after = [keras.ops.convert_to_numpy(v) for v in variables]
    shares = [a / b for a, b in zip(after, before, strict=True)]
    for share in shares:
        np.testing.assert_allclose(share, share.flat[0], rtol=0, atol=TOLERANCE)
    return [float(share.flat[0]) for share in shares]


@pytest.mark.parametrize(
    ("arguments", "matrix", "gain"),
    [
        pytest.param({"weight_decay": 0.1}, 0.95, 0.95, id="the_same"),
        pytest.param(
            {"weight_decay": 0.1, "adam_weight_decay": 0.2}, 0.95, 0.9, id="two_decays"
        ),
        pytest.param(
            {"weight_decay": 0.1, "adam_weight_decay": None}, 0.95, 1.0, id="muon_only"
        ),
        pytest.param({"weight_decay": None}, 1.0, 1.0, id="none"),
        pytest.param({"weight_decay": 0.0}, 1.0, 1.0, id="zero"),
        pytest.param(
            {"weight_decay": None, "adam_weight_decay": 0.2}, 1.0, 0.9, id="adamw_only"
        ),
        pytest.param(
            {"weight_decay": 0.1, "adam_learning_rate": 0.25},
            0.95,
            0.975,
            id="own_rate",
        ),
    ],
)
def test_decay_is_rate_times_decay(arguments, matrix, gain, variables):
    """W <- (1 - rate * decay) W, each rule with its own rate and decay, unscaled."""
    shares = kept_shares(Muon(RATE, routes=ROUTES, **arguments), variables)
    np.testing.assert_allclose(shares, [matrix, matrix, gain], rtol=0, atol=TOLERANCE)


def test_decay_follows_a_schedule(variables):
    """Decay is proportional to the rate of its step, not to the first rate."""
    halved = keras.optimizers.schedules.ExponentialDecay(RATE, 1, 0.5)
    optimizer = Muon(halved, routes=ROUTES, weight_decay=0.1)
    shares = [kept_shares(optimizer, variables)[0] for _ in range(3)]
    np.testing.assert_allclose(shares, [0.95, 0.975, 0.9875], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("excluded", "expected"),
    [
        pytest.param({"var_names": ["gain"]}, [0.95, 0.95, 1.0], id="name"),
        pytest.param({"var_names": ["fir", "gain"]}, [1.0, 0.95, 1.0], id="parts"),
        pytest.param({"var_list": [1]}, [0.95, 1.0, 0.95], id="variable"),
        pytest.param(
            {"var_list": [2], "var_names": ["second"]}, [0.95, 1.0, 1.0], id="both"
        ),
    ],
)
def test_excluded_variables_do_not_decay(excluded, expected, variables):
    """`exclude_from_weight_decay` holds for hidden matrices and for the rest."""
    chosen = [variables[index] for index in excluded.get("var_list", [])]
    optimizer = Muon(RATE, routes=ROUTES, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(
        var_list=chosen, var_names=excluded.get("var_names")
    )
    shares = kept_shares(optimizer, variables)
    np.testing.assert_allclose(shares, expected, rtol=0, atol=TOLERANCE)


def test_variables_are_excluded_after_building_too(variables):
    """As those of a loaded model, whose configuration does not name them.

    Both rules decayed all variables in the step before.
    """
    optimizer = Muon(RATE, routes=ROUTES, weight_decay=0.1)
    assert max(kept_shares(optimizer, variables)) < 0.96
    optimizer.exclude_from_weight_decay(var_names=["second", "gain"])
    shares = kept_shares(optimizer, variables)
    np.testing.assert_allclose(shares, [0.95, 1.0, 1.0], rtol=0, atol=TOLERANCE)


CONSTRAINTS = [
    pytest.param(lambda: keras.constraints.MaxNorm(0.4), id="MaxNorm"),
    pytest.param(keras.constraints.UnitNorm, id="UnitNorm"),
    pytest.param(keras.constraints.NonNeg, id="NonNeg"),
]


def stepped(constraint):
    """Return the variables after one step."""
    numbers = np.random.default_rng(1)
    variables = []
    for name, shape in SHAPES.items():
        start = numbers.standard_normal(shape)
        variable = keras.Variable(start, name=name, dtype="float32")
        variable.constraint = constraint
        variables.append(variable)
    gradients = [numbers.standard_normal(shape) for shape in SHAPES.values()]
    gradients = [keras.ops.cast(gradient, "float32") for gradient in gradients]
    Muon(RATE, routes=ROUTES).apply(gradients, variables)
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


@pytest.mark.parametrize("make_constraint", CONSTRAINTS)
def test_constraints_hold_after_the_step(make_constraint):
    """The constrained weights are the constraint of the unconstrained ones."""
    constraint = make_constraint()
    for value, free in zip(stepped(constraint), stepped(None), strict=True):
        expected = keras.ops.convert_to_numpy(constraint(free))
        np.testing.assert_allclose(value, expected, rtol=0, atol=TOLERANCE)
        assert np.abs(value - free).max() > 1000 * TOLERANCE


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the others compute in order"
)
def test_tensorflow_decays_a_weight_only_when_its_change_is_there():
    """Before, the decayed weight would be one matrix more in memory all along."""
    import tensorflow as tf

    class Plain:
        def master_of(self, index):
            return None

        def assign(self, variable, value):
            variable.assign(value)

    weight = keras.Variable(np.ones((3, 4), "float32"))

    @tf.function(autograph=False)
    def step(gradient):
        move(Plain(), 0, weight, tf.square(gradient), tf.constant(0.5), None)

    gradient = tf.constant(np.full((3, 4), 2.0, "float32"))
    operations = step.get_concrete_function(gradient).graph.get_operations()
    (decay,) = [operation for operation in operations if operation.type == "Mul"]
    assert [waited.type for waited in decay.control_inputs] == ["Square"]
    step(gradient)
    np.testing.assert_array_equal(weight.numpy(), 0.5 - 4.0)
