"""Gradients that are missing, zero or sparse."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

SHAPES = {"first": (6, 4), "second": (6, 4), "gain": (5,), "shift": (5,)}
ROUTES = {"first|second": "muon", "gain|shift": "adamw"}
STEPS = 3

# Largest error seen where a comparison is not exact: 1.2e-7, on torch.
TOLERANCE = 1e-5


def steps(missing=None):
    """Gradients of each step; in the second step the one of `missing` is None."""
    numbers = np.random.default_rng(5)
    for step in range(STEPS):
        gradients = {name: numbers.standard_normal(s) for name, s in SHAPES.items()}
        gradients = {n: keras.ops.cast(g, "float32") for n, g in gradients.items()}
        if step == 1 and missing is not None:
            gradients[missing] = None
        yield list(gradients.values())


def new_variables():
    numbers = np.random.default_rng(3)
    return [
        keras.Variable(numbers.standard_normal(shape), name=name, dtype="float32")
        for name, shape in SHAPES.items()
    ]


def by_name(variables):
    return {v.name: keras.ops.convert_to_numpy(v).copy() for v in variables}


@pytest.mark.parametrize("missing", ["first", "gain"])
@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_a_variable_without_gradient_is_left_alone(missing):
    """Neither it nor its state moves or decays; the others take their usual step."""
    optimizer, variables = Muon(0.1, routes=ROUTES), new_variables()
    untouched, usual = new_variables(), Muon(0.1, routes=ROUTES)
    for gradients, all_gradients in zip(steps(missing), steps(), strict=True):
        before = by_name([*variables, *optimizer.variables])
        optimizer.apply(gradients, variables)
        usual.apply(all_gradients, untouched)
        after = by_name([*variables, *optimizer.variables])
        if any(gradient is None for gradient in gradients):
            own = [name for name in before if name.startswith(missing)]
            assert len(own) == (2 if missing == "first" else 3)
            for name in own:
                np.testing.assert_array_equal(after[name], before[name])
    others = [name for name in SHAPES if name != missing]
    for name in others:
        expected = by_name(untouched)[name]
        np.testing.assert_allclose(
            by_name(variables)[name], expected, rtol=0, atol=TOLERANCE
        )
    moved = np.abs(by_name(variables)[missing] - by_name(untouched)[missing])
    assert moved.max() > 1000 * TOLERANCE


def test_a_missing_gradient_is_reported():
    """Keras names the variable that has no gradient."""
    optimizer, variables = Muon(0.1, routes=ROUTES), new_variables()
    gradients = [None, *next(steps())[1:]]
    with pytest.warns(UserWarning, match="Gradients do not exist.*first"):
        optimizer.apply(gradients, variables)


def test_no_gradient_at_all_is_refused():
    """With nothing but None there is nothing to apply."""
    optimizer, variables = Muon(0.1, routes=ROUTES), new_variables()
    with pytest.raises(ValueError, match="No gradients provided"):
        optimizer.apply([None] * len(SHAPES), variables)


# JAX differentiates by zeros what the others leave out with a warning.
@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_a_branch_outside_the_loss_stays_as_it_is():
    """In `fit` a layer that no loss depends on keeps its weights, on every backend."""
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(6, name="hidden")(inputs)
    unused = keras.layers.Dense(6, name="unused")(inputs)
    outputs = {
        "wanted": keras.layers.Dense(3, name="wanted")(hidden),
        "other": keras.layers.Dense(3, name="other")(unused),
    }
    model = keras.Model(inputs, outputs)
    model.compile(optimizer=Muon(0.1, weight_decay=None), loss={"wanted": "mse"})
    before = by_path(model)
    x, y = np.ones((4, 8), "float32"), np.ones((4, 3), "float32")
    model.fit(x, {"wanted": y}, verbose=0)
    after = by_path(model)
    for path, value in after.items():
        still = path.startswith(("unused", "other"))
        assert (value == before[path]).all() == still, path


def by_path(model):
    weights = zip(model.weights, model.get_weights(), strict=True)
    return {variable.path: value for variable, value in weights}


def test_zero_gradients_move_nothing():
    """The polar factor of zero is zero: no NaN, no step."""
    optimizer, variables = Muon(0.1, routes=ROUTES, weight_decay=None), new_variables()
    optimizer.apply([keras.ops.zeros(v.shape) for v in variables], variables)
    for name, value in by_name(new_variables()).items():
        np.testing.assert_array_equal(by_name(variables)[name], value)


@pytest.mark.parametrize("given", [True, False], ids=["variables given", "built for"])
def test_gradients_of_another_shape_or_number_are_refused(given):
    """By the variable's path, and before anything has moved."""
    optimizer, variables = Muon(0.1, routes=ROUTES), new_variables()
    optimizer.build(variables)
    before = by_name([*variables, *optimizer.variables])
    gradients = next(steps())
    swapped = [gradients[2], *gradients[1:]]
    arguments = (variables,) if given else ()
    with pytest.raises(ValueError, match=r"gradient of 'first' has shape \(5,\).*6, 4"):
        optimizer.apply(swapped, *arguments)
    with pytest.raises(ValueError, match="received 3 for 4 variables"):
        optimizer.apply(gradients[:3], *arguments)
    for name, value in by_name([*variables, *optimizer.variables]).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist])
def test_gradients_may_be_arrays_or_lists(kind):
    """They are tensors to the step."""
    variables, others = new_variables(), new_variables()
    optimizer, usual = Muon(0.1, routes=ROUTES), Muon(0.1, routes=ROUTES)
    for gradients in steps():
        usual.apply(gradients, others)
        arrays = [kind(keras.ops.convert_to_numpy(g)) for g in gradients]
        optimizer.apply(arrays, variables)
    for name, expected in by_name(others).items():
        value = by_name(variables)[name]
        np.testing.assert_allclose(value, expected, rtol=0, atol=TOLERANCE)


def test_a_variable_that_is_there_twice_is_refused():
    """Before anything has moved: one of its two steps would be lost."""
    optimizer, variables = Muon(0.1, routes=ROUTES), new_variables()
    optimizer.build(variables)
    before = by_name([*variables, *optimizer.variables])
    first, second, *_ = variables
    gradient = keras.ops.ones((6, 4))
    with pytest.raises(ValueError, match="`trainable_variables` has 'first' twice"):
        optimizer.apply([gradient] * 3, [first, second, first])
    for name, value in by_name([*variables, *optimizer.variables]).items():
        np.testing.assert_array_equal(value, before[name])


def test_a_variable_is_built_for_once():
    """Two states of one variable would both be stepped."""
    first, *_ = new_variables()
    with pytest.raises(ValueError, match="`variables` has 'first' twice"):
        Muon(routes={"first": "muon"}).build([first, first])


def test_only_variables_of_keras_are_trained():
    """Tensors in them have neither path nor state."""
    values = [variable.value for variable in new_variables()]
    with pytest.raises(TypeError, match=r"received a \w+. Pass model.trainable_var"):
        Muon(0.1, routes=ROUTES).apply(next(steps()), values)


if keras.backend.backend() == "torch":

    @pytest.mark.parametrize("rule", ["muon", "adamw"])
    def test_sparse_gradients_of_torch_are_those_of_dense_ones(rule):
        """As of `torch.nn.Embedding(sparse=True)`: entries that are there twice add."""
        import torch

        places = torch.tensor([[0, 2, 0], [1, 3, 1]])
        values = torch.tensor([1.0, 2.0, 3.0])
        sparse = torch.sparse_coo_tensor(places, values, (4, 6), check_invariants=True)
        results = []
        for gradient in (sparse, sparse.to_dense()):
            variable = keras.Variable(np.ones((4, 6), "float32"), name="table")
            optimizer = Muon(0.1, routes={"table": rule}, clipnorm=1.0)
            optimizer.build([variable])
            optimizer.apply([gradient])
            results.append(keras.ops.convert_to_numpy(variable))
        np.testing.assert_array_equal(*results)
        assert (results[0] != 1.0).any()
