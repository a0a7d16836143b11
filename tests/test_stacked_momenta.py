"""Momenta of a bucket in one stack, and still each in its own variable."""

import keras
import numpy as np
import pytest

from keras_muon import MatrixView, Muon

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only torch stacks momenta"
)

# One bucket: two orientations, and an attention kernel of three axes.
SHAPES = [(12, 20), (20, 12), (12, 20)]
HEADS = (12, 4, 5)


def optimizer_of(shapes=(*SHAPES, HEADS), **arguments):
    """An optimizer that stacks matrices of 12 x 20, and its weights."""
    rng = np.random.default_rng(0)
    weights = [
        keras.Variable(rng.normal(size=shape), name=f"w{number}")
        for number, shape in enumerate(shapes)
    ]
    views = {f"^w{shapes.index(HEADS)}$": MatrixView(HEADS, (0,), (1, 2))}
    optimizer = Muon(1e-2, routes=views | {".*": "muon"}, **arguments)
    optimizer.build(weights)
    return optimizer, weights


def gradients_of(weights, seed):
    rng = np.random.default_rng(seed)
    return [keras.ops.array(rng.normal(size=w.shape), "float32") for w in weights]


def momenta_of(optimizer, weights):
    return [optimizer.state_of(index)[0] for index in range(len(weights))]


def stack_of(optimizer, weights):
    return optimizer.stacked_momenta(range(len(weights)))


def test_the_momenta_are_parts_of_one_stack():
    """In their own shapes, with what was in them."""
    optimizer, weights = optimizer_of()
    momenta, rng = momenta_of(optimizer, weights), np.random.default_rng(1)
    values = [rng.normal(size=w.shape).astype("float32") for w in weights]
    for momentum, value in zip(momenta, values, strict=True):
        momentum.assign(value)
    stack = stack_of(optimizer, weights).stack
    assert stack.shape == (4, 12, 20)
    expected = [values[0], values[1].T, values[2], values[3].reshape(12, 20)]
    np.testing.assert_array_equal(stack.numpy(), expected)
    stack.mul_(2.0)
    for momentum, value in zip(momenta, values, strict=True):
        np.testing.assert_array_equal(momentum.numpy(), 2.0 * value)


def test_a_stack_is_made_once():
    """Steps write into it, where it is."""
    optimizer, weights = optimizer_of()
    optimizer.apply(gradients_of(weights, 2))
    first = stack_of(optimizer, weights)
    optimizer.apply(gradients_of(weights, 3))
    assert stack_of(optimizer, weights) is first
    assert first.holds()


def test_what_is_loaded_is_what_the_next_step_takes():
    """After steps, another state is restored, and training goes on from it."""
    optimizer, weights = optimizer_of()
    optimizer.apply(gradients_of(weights, 2))
    saved = [v.numpy().copy() for v in (*optimizer.variables, *weights)]
    optimizer.apply(gradients_of(weights, 3))
    wanted = [v.numpy().copy() for v in (*optimizer.variables, *weights)]
    for variable, value in zip((*optimizer.variables, *weights), saved, strict=True):
        variable.assign(value)
    optimizer.apply(gradients_of(weights, 3))
    for variable, value in zip((*optimizer.variables, *weights), wanted, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_a_momentum_that_was_moved_is_not_lost():
    """Its new values are stacked again; those of the stack are not used any more."""
    optimizer, weights = optimizer_of()
    optimizer.apply(gradients_of(weights, 2))
    stack = stack_of(optimizer, weights)
    value = momenta_of(optimizer, weights)[1].value
    value.data = 3.0 * value.data.clone()
    expected = value.numpy().copy()
    assert not stack.holds()
    again = stack_of(optimizer, weights)
    assert again is not stack
    np.testing.assert_array_equal(again.stack[1].numpy(), expected.T)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_step_without_all_gradients_writes_into_the_same_momenta():
    """As a list they are advanced, and as a stack the next time: one trajectory."""
    optimizer, weights = optimizer_of()
    other, others = optimizer_of(batched=False)
    for seed, left_out in ((2, None), (3, 1), (4, None)):
        gradients = gradients_of(weights, seed)
        if left_out is not None:
            gradients[left_out] = None
        optimizer.apply(gradients, weights)
        other.apply(list(gradients), others)
    pairs = zip(
        (*weights, *momenta_of(optimizer, weights)),
        (*others, *momenta_of(other, others)),
        strict=True,
    )
    for one, two in pairs:
        # The norm of a stack and of one matrix differ in the last bit.
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=0, atol=2e-6)
    assert stack_of(optimizer, weights).holds()


def test_what_cannot_be_a_part_of_a_stack_stays_as_it_is():
    """The groups of a convolution are not beside each other in its kernel."""
    shape = (3, 3, 4, 8)
    view = MatrixView(shape, (0, 1, 2), (4,), batch_axes=(3,), factors=(3, 3, 4, 2, 4))
    weights = [keras.Variable(np.ones(shape), name=f"w{i}") for i in range(2)]
    optimizer = Muon(1e-2, routes={".*": view})
    optimizer.build(weights)
    assert [count for count, _ in optimizer.plans] == [4]
    values = [momentum.value for momentum in momenta_of(optimizer, weights)]
    places = [value.data_ptr() for value in values]
    assert stack_of(optimizer, weights) is None
    optimizer.apply(gradients_of(weights, 2))
    assert [value.data_ptr() for value in values] == places
    assert all(np.abs(value.numpy()).max() > 0.1 for value in values)


def test_values_of_a_scope_are_stepped_instead_of_the_stack():
    """Momenta outside of it stay, those in it move, before the first step and after."""
    optimizer, weights = optimizer_of()
    plain, others = optimizer_of(batched=False)
    momenta = momenta_of(optimizer, weights)
    for seed in (2, 3):
        variables = (*optimizer.variables, *weights)
        inside = [(v, v.value.detach().clone()) for v in variables]
        before = [v.numpy().copy() for v in variables]
        with keras.StatelessScope(state_mapping=inside):
            optimizer.apply(gradients_of(weights, 9), weights)
            moved = [m.numpy().copy() for m in momenta]
        np.testing.assert_equal([v.numpy() for v in variables], before)
        assert all(
            np.abs(new - old.numpy()).max() > 0.1
            for new, old in zip(moved, momenta, strict=True)
        )
        optimizer.apply(gradients_of(weights, seed), weights)
        plain.apply(gradients_of(others, seed), others)
    for one, two in zip(momenta, momenta_of(plain, others), strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=0, atol=2e-6)


def test_a_variable_that_keras_overwrites_has_no_momentum_to_stack():
    """Its neighbours of the same shape are stacked without it."""
    weights = [keras.Variable(np.ones((12, 20)), name=f"w{i}") for i in range(3)]
    weights[0].overwrite_with_gradient = True
    optimizer = Muon(1e-2, routes={".*": "muon"})
    optimizer.build(weights)
    optimizer.apply([2.0 * keras.ops.ones((12, 20))] * 3, weights)
    np.testing.assert_array_equal(weights[0].numpy(), 2.0)
    assert optimizer.stacked_momenta([1, 2]).stack.shape == (2, 12, 20)
