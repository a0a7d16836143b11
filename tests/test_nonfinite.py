"""What an infinite gradient, or one that is not a number, does: `nonfinite`."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

SHAPES = {"first": (6, 4), "second": (6, 4), "experts": (3, 6, 4), "gain": (5,)}
ROUTES = {
    "first|second": "muon",
    "experts": {"batch_axes": (0,), "in_axes": (1,), "out_axes": (2,)},
    "gain": "adamw",
}
BAD = [np.nan, np.inf, -np.inf]

bad = pytest.mark.parametrize("value", BAD, ids=str)
dtypes = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


def array(variable):
    return keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32")).copy()


def run(dtype, nonfinite, spoiled=(), value=np.nan):
    """Three steps; in the second, one gradient entry of each spoiled variable is bad.

    Returns:
        For each step, {variable name: [weight, *its state]}.
    """
    numbers = np.random.default_rng(3)
    variables = [
        keras.Variable(numbers.standard_normal(shape), name=name, dtype=dtype)
        for name, shape in SHAPES.items()
    ]
    optimizer = Muon(0.1, routes=ROUTES, nonfinite=nonfinite, batched=True)
    optimizer.build(variables)
    rows = []
    for step in range(3):
        gradients = {n: numbers.standard_normal(s) for n, s in SHAPES.items()}
        for name in spoiled if step == 1 else ():
            gradients[name][(1,) * len(SHAPES[name])] = value
        values = [keras.ops.cast(g, dtype) for g in gradients.values()]
        optimizer.apply(values)
        rows.append({v.name: kept(optimizer, v) for v in variables})
    return rows


def kept(optimizer, variable):
    names = [f"{variable.name}_{kind}" for kind in ("momentum", "velocity", "master")]
    state = [v for v in optimizer.variables if v.name in names]
    return [array(variable), *map(array, state)]


def assert_equal(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@bad
@dtypes
@pytest.mark.parametrize("spoiled", [("first",), ("experts",), ("first", "gain")])
def test_skip_leaves_the_variable_and_its_state(dtype, spoiled, value):
    """Weight, momentum, velocity and master stay; the others take their usual step."""
    clean = run(dtype, "skip")
    rows = run(dtype, "skip", spoiled, value)
    for name in SHAPES:
        count = 1 + (name == "gain") + 1 + (dtype == "bfloat16")
        assert len(rows[1][name]) == count
        if name in spoiled:
            assert_equal(rows[1][name], rows[0][name])
            assert np.isfinite(rows[2][name][0]).all()
            assert (rows[2][name][0] != rows[1][name][0]).any()
        else:
            assert_equal(rows[1][name], clean[1][name])
            assert_equal(rows[2][name], clean[2][name])


@bad
@dtypes
def test_propagate_reaches_only_its_own_matrix(dtype, value):
    """Not the other matrix of the stack, not the other experts of the same variable."""
    clean = run(dtype, "propagate")[1]
    rows = run(dtype, "propagate", ("first", "experts", "gain"), value)[1]
    assert not np.isfinite(rows["first"][0]).all()
    assert_equal(rows["second"], clean["second"])
    weight, expected = rows["experts"][0], clean["experts"][0]
    assert not np.isfinite(weight[1]).all()
    np.testing.assert_array_equal(weight[[0, 2]], expected[[0, 2]])
    # AdamW's variable: its own entry.
    np.testing.assert_array_equal(np.isfinite(rows["gain"][0]), np.arange(5) != 1)


def new_model():
    """Three layers in parallel, so that a bad target spoils one of them."""
    keras.utils.set_random_seed(9)
    inputs = keras.Input((4,))
    first = keras.layers.Dense(4, name="first")(inputs)
    second = keras.layers.Dense(4, name="second")(inputs)
    experts = keras.layers.EinsumDense("bed,edf->bef", (3, 4), name="experts")
    outputs = [first, second, experts(keras.layers.RepeatVector(3)(inputs))]
    return keras.Model(inputs, outputs)


def linear(wanted, predicted):
    return keras.ops.mean(predicted * wanted)


def fitted(nonfinite, value=None):
    """Return the weights before and after a step by path, and the state by name.

    Args:
        nonfinite: The argument of Muon.
        value: What spoils the first layer and the second one of the experts.
    """
    numbers = np.random.default_rng(4)
    x = numbers.standard_normal((8, 4)).astype("float32")
    shapes = (8, 4), (8, 4), (8, 3, 4)
    y = [numbers.standard_normal(shape).astype("float32") for shape in shapes]
    if value is not None:
        y[0][2, 3] = y[2][2, 1, 3] = value
    model = new_model()
    before = {v.path: array(v) for v in model.weights}
    optimizer = Muon(
        0.1, routes={".*kernel": "muon"}, nonfinite=nonfinite, batched=True
    )
    compiled = keras.backend.backend() == "jax"
    model.compile(optimizer, [linear] * 3, jit_compile=compiled)
    model.fit(x, y, batch_size=8, verbose=0)
    state = {v.name: array(v) for v in optimizer.variables}
    return before, {v.path: array(v) for v in model.weights}, state


def test_skip_in_fit():
    """The compiled step leaves what is spoiled and moves the rest as ever."""
    _, clean, clean_state = fitted("skip")
    before, after, state = fitted("skip", np.nan)
    for path, value in after.items():
        expected = clean if path.startswith("second") else before
        np.testing.assert_array_equal(value, expected[path], err_msg=path)
        assert np.abs(clean[path] - before[path]).max() > 0.01
    for name, value in state.items():
        if name.startswith("second"):
            np.testing.assert_array_equal(value, clean_state[name], err_msg=name)
        elif name.startswith(("first", "experts")):
            assert not value.any(), name


def test_propagate_in_fit():
    """The compiled step spoils one matrix of the stack and one expert."""
    _, clean, _ = fitted("propagate")
    _, after, _ = fitted("propagate", np.nan)
    assert not np.isfinite(after["first/kernel"]).all()
    for path in ("second/kernel", "second/bias"):
        np.testing.assert_array_equal(after[path], clean[path], err_msg=path)
    kernel, expected = after["experts/kernel"], clean["experts/kernel"]
    assert not np.isfinite(kernel[1]).all()
    np.testing.assert_array_equal(kernel[[0, 2]], expected[[0, 2]])


def test_a_finite_gradient_whose_square_overflows_is_skipped():
    """The second moment would be infinite, and the next step not a number."""
    variable = keras.Variable(np.ones(4), name="gain", dtype="float32")
    optimizer = Muon(0.1, routes={"gain": "adamw"}, nonfinite="skip")
    optimizer.build([variable])
    for size in (1.0, 1e20, 1.0, 1.0):
        before = kept(optimizer, variable)
        optimizer.apply([keras.ops.full((4,), size)], [variable])
        after = kept(optimizer, variable)
        if size > 1.0:
            assert_equal(before, after)
        else:
            assert (after[0] < before[0]).all()
    with np.errstate(over="ignore"):
        assert np.isinf(np.float32(1e20) ** 2)


def test_finite_gradients_whose_sum_overflows_are_skipped():
    """The momentum of the third would be infinite, and all later steps not a number."""
    variable = keras.Variable(np.eye(6), name="first", dtype="float32")
    optimizer = Muon(0.1, routes={"first": "muon"}, nonfinite="skip")
    optimizer.build([variable])
    gradients = np.random.default_rng(5).standard_normal((6, 6)).astype("float32")
    skipped = 0
    for size in (1.0, 1e38, 1e38, 1e38, 1e38, 1.0, 1.0):
        before = kept(optimizer, variable)
        optimizer.apply([size * gradients], [variable])
        after = kept(optimizer, variable)
        assert all(np.isfinite(value).all() for value in after)
        pairs = zip(before, after, strict=True)
        skipped += all((one == two).all() for one, two in pairs)
    assert 1 <= skipped <= 4
