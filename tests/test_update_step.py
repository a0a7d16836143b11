"""Single calls of the optimizer: `update_step`, `apply`, `stateless_apply`."""

import gc
import itertools
import weakref

import keras
import numpy as np
import pytest

from keras_muon import Muon

SHAPES = {"first": (6, 4), "second": (6, 4), "gain": (5,)}
ROUTES = {"first|second": "muon", "gain": "adamw"}
RATE = 0.1

# Largest error seen: 6.0e-8, on torch. One step moves a weight by 0.1.
TOLERANCE = 1e-5


@pytest.fixture
def variables(rng):
    return [
        keras.Variable(rng.standard_normal(shape), name=name, dtype="float32")
        for name, shape in SHAPES.items()
    ]


@pytest.fixture
def gradients(rng):
    values = [rng.standard_normal(shape) for shape in SHAPES.values()]
    return [keras.ops.cast(value, "float32") for value in values]


def flat(variables):
    return np.concatenate([keras.ops.convert_to_numpy(v).ravel() for v in variables])


@pytest.fixture
def expected(variables, gradients):
    """The weights after one `apply`, on copies."""
    copies = [keras.Variable(keras.ops.copy(v.value), name=v.name) for v in variables]
    Muon(RATE, routes=ROUTES).apply(gradients, copies)
    assert np.abs(flat(copies) - flat(variables)).max() > 1000 * TOLERANCE
    return flat(copies)


def test_update_step_updates_one_variable(variables, gradients, expected):
    """Called by hand, `update_step` does to each variable what `apply` does to all."""
    optimizer = Muon(RATE, routes=ROUTES)
    optimizer.build(variables)
    before = flat(variables)
    optimizer.update_step(gradients[0], variables[0], RATE)
    size = variables[0].shape[0] * variables[0].shape[1]
    np.testing.assert_array_equal(flat(variables)[size:], before[size:])
    for gradient, variable in zip(gradients[1:], variables[1:], strict=True):
        optimizer.update_step(gradient, variable, RATE)
    np.testing.assert_allclose(flat(variables), expected, rtol=0, atol=TOLERANCE)


def test_update_step_as_keras_calls_it(variables, gradients, expected):
    """The rate may be a tensor, and on TensorFlow variables are bare: without path."""
    optimizer = Muon(RATE, routes=ROUTES)
    optimizer.build(variables)
    is_tensorflow = keras.backend.backend() == "tensorflow"
    for gradient, variable in zip(gradients, variables, strict=True):
        bare = variable.value if is_tensorflow else variable
        optimizer.update_step(gradient, bare, keras.ops.cast(RATE, "float32"))
    np.testing.assert_allclose(flat(variables), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("given", ["with_variables", "without_variables", "pairs"])
def test_ways_to_apply(given, variables, gradients, expected):
    """`apply` with and without variables and `apply_gradients` are one."""
    optimizer = Muon(RATE, routes=ROUTES)
    optimizer.build(variables)
    if given == "with_variables":
        optimizer.apply(gradients, variables)
    elif given == "without_variables":
        optimizer.apply(gradients)
    else:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    np.testing.assert_allclose(flat(variables), expected, rtol=0, atol=TOLERANCE)


def test_a_part_of_the_variables(variables, gradients, expected):
    """`apply` may be given some of the variables, in any order."""
    optimizer = Muon(RATE, routes=ROUTES)
    optimizer.build(variables)
    start, size = flat(variables), SHAPES["first"][0] * SHAPES["first"][1]
    optimizer.apply([gradients[2], gradients[1]], [variables[2], variables[1]])
    np.testing.assert_array_equal(flat(variables)[:size], start[:size])
    np.testing.assert_allclose(
        flat(variables)[size:], expected[size:], rtol=0, atol=TOLERANCE
    )


def test_an_unknown_variable_is_refused(variables, gradients):
    """A variable that the optimizer was not built for is an error."""
    optimizer = Muon(RATE, routes=ROUTES)
    optimizer.build(variables)
    stranger = keras.Variable(np.ones(5), name="stranger", dtype="float32")
    with pytest.raises(ValueError, match=r"variables than 'stranger'.*Muon\.for"):
        optimizer.apply(gradients[-1:], [stranger])
    with pytest.raises(ValueError, match=r"variables than '\w+'.*Muon\.for_model"):
        optimizer.apply(gradients[-1:], [stranger.value])


def test_no_gradients_are_no_step(variables):
    """An empty list of gradients changes nothing."""
    optimizer = Muon(RATE, routes=ROUTES)
    optimizer.build(variables)
    before = flat(variables)
    optimizer.apply([])
    np.testing.assert_array_equal(flat(variables), before)
    assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == 0


def test_stateless_apply(variables, gradients, expected):
    """It returns what `apply` assigns; on TensorFlow Keras refuses it."""
    optimizer = Muon(RATE, routes=ROUTES)
    optimizer.build(variables)
    before = flat(variables)
    state = [v.value for v in optimizer.variables]
    values = [v.value for v in variables]
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match="stateless_apply is not supported"):
            optimizer.stateless_apply(state, gradients, values)
        return
    weights, new_state = optimizer.stateless_apply(state, gradients, values)
    np.testing.assert_allclose(flat(weights), expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(flat(variables), before)
    assert [tuple(v.shape) for v in new_state] == [tuple(v.shape) for v in state]


def test_an_optimizer_goes_with_its_last_name(variables, gradients):
    """Its state, as large as the model, does not wait for the collector of cycles."""

    def stepped():
        optimizer = Muon(RATE, routes=ROUTES)
        optimizer.apply(gradients, variables)
        return [weakref.ref(each) for each in (optimizer, *optimizer.variables)]

    gc.disable()
    try:
        assert {gone() for gone in stepped()} == {None}
    finally:
        gc.enable()


if keras.backend.backend() == "torch":
    import torch

    def test_no_graph_is_built(variables, gradients):
        """A step outside of `torch.no_grad` computes without autograd all the same."""
        recorded = []

        def rate():
            recorded.append(torch.is_grad_enabled())
            return RATE

        assert torch.is_grad_enabled()
        optimizer = Muon(RATE, adam_learning_rate=rate, routes=ROUTES)
        optimizer.apply(gradients, variables)
        assert recorded == [False]


def test_groups_are_not_kept_for_every_set_of_gradients():
    """Layers that are skipped at random, as in stochastic depth, leave no memory."""
    variables = [keras.Variable(np.ones((2, 3)), name=f"w{i}") for i in range(10)]
    optimizer = Muon(1e-3, routes={".*": "muon"})
    optimizer.build(variables)
    sets = list(itertools.combinations(range(10), 3))
    assert len(sets) == 120
    for chosen in sets:
        assert sorted(itertools.chain(*optimizer.buckets(chosen))) == [0, 1, 2]
        assert optimizer.buckets(chosen) is optimizer.buckets(chosen)
    assert len(optimizer._known_buckets._groupings) <= 64
