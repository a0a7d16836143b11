"""Stacks of equal matrices: how they are formed, and that they change no step."""

import keras
import numpy as np
import pytest
import torch

from keras_muon import MatrixView, Muon, batching
from keras_muon.batching import runs_on_accelerator, stacks

STEPS = 4

# On a CPU no backend shows any error. Two matrices that change places in a stack are
# off by 0.1.
TOLERANCE = 5e-6

# Seven matrices of 12 x 12 in four kinds of kernels, and one of 20 x 8.
VIEWS = {
    "dense": MatrixView((12, 12), (0,), (1,)),
    "narrow": MatrixView((20, 8), (0,), (1,)),
    "query": MatrixView((12, 2, 6), (0,), (1, 2)),
    "experts": MatrixView((3, 12, 12), (1,), (2,), (0,)),
    "output": MatrixView((2, 6, 12), (0, 1), (2,)),
    "another_dense": MatrixView((12, 12), (0,), (1,)),
}

# Beside them what AdamW updates one by one, so that positions and indices differ.
SHAPES = {"gain": (16,)} | {name: view.shape for name, view in VIEWS.items()}


@pytest.fixture
def arrays(rng):
    """For every variable the weight, then the gradient of each step."""
    return {
        name: rng.normal(size=(1 + STEPS, *shape)).astype("float32")
        for name, shape in SHAPES.items()
    }


def run(arrays, batched, order=tuple(SHAPES), missing=()):
    """The weights after all steps; gradients are given in `order`."""
    variables = {name: keras.Variable(arrays[name][0], name=name) for name in SHAPES}
    optimizer = Muon(0.05, batched=batched, routes=VIEWS)
    optimizer.build(list(variables.values()))
    for step in range(1, 1 + STEPS):
        gradients = [
            None if name in missing else keras.ops.convert_to_tensor(arrays[name][step])
            for name in order
        ]
        optimizer.apply(gradients, [variables[name] for name in order])
    return {n: keras.ops.convert_to_numpy(v.value) for n, v in variables.items()}


def distances(actual, wanted):
    return {name: np.abs(actual[name] - wanted[name]).max() for name in wanted}


def test_stacks_change_no_step(arrays):
    """Kernels of two and three axes share an iteration and still go their own ways."""
    alone, together = run(arrays, batched=False), run(arrays, batched=True)
    wrong = distances(together, alone)
    assert max(wrong.values()) < TOLERANCE, wrong


def test_the_comparison_notices_matrices_that_change_places(arrays):
    """Members of one stack, each with the other's gradient, end far away."""
    alone = run(arrays, batched=False)
    swapped = {n: a.copy() for n, a in arrays.items()}
    swapped["dense"][1:], swapped["another_dense"][1:] = (
        arrays["another_dense"][1:],
        arrays["dense"][1:],
    )
    wrong = distances(run(swapped, batched=True), alone)
    assert min(wrong["dense"], wrong["another_dense"]) > 1000 * TOLERANCE


def test_the_order_of_gradients_makes_no_difference(arrays):
    """Gradients may come in another order than the variables were built in."""
    order = tuple(reversed(SHAPES))
    wrong = distances(run(arrays, True, order), run(arrays, False))
    assert max(wrong.values()) < TOLERANCE, wrong


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_a_missing_gradient_leaves_the_others_in_place(arrays):
    """A stack closes over the gap: its variable stays, all others move as before."""
    usual = run(arrays, batched=False)
    actual = run(arrays, batched=True, missing=("query",))
    np.testing.assert_array_equal(actual.pop("query"), arrays["query"][0])
    wrong = distances(actual, {n: w for n, w in usual.items() if n != "query"})
    assert max(wrong.values()) < TOLERANCE, wrong


def views(*names):
    return [VIEWS[name] for name in names]


def test_stacks_join_equal_matrices_of_any_rank():
    """In and out extents decide; ranks, batches and positions do not."""
    assert stacks(list(VIEWS.values()), ["float32"] * 6, True) == [[0, 2, 3, 4, 5], [1]]


def test_stacks_keep_the_order_of_their_first_members():
    """The narrow kernel comes first, so does its stack."""
    chosen = views("narrow", "dense", "narrow", "query")
    assert stacks(chosen, ["float32"] * 4, True) == [[0, 2], [1, 3]]


def test_small_matrices_share_a_stack_with_transposed_ones():
    """8 x 20 and 20 x 8 go together, 10 x 16 with as many entries does not."""
    chosen = [MatrixView(shape, (0,), (1,)) for shape in ((8, 20), (10, 16), (20, 8))]
    assert stacks(chosen, ["float32"] * 3, True) == [[0, 2], [1]]


def test_large_matrices_share_no_stack_with_transposed_ones():
    """A transposed copy of them would cost more than a second graph."""
    chosen = [MatrixView(shape, (0,), (1,)) for shape in ((512, 1024), (1024, 512))]
    assert stacks(chosen, ["float32"] * 2, True) == [[0], [1]]


ORIENTATIONS = {
    "wide": MatrixView.of_last_axes((8, 20)),
    "tall": MatrixView.of_last_axes((20, 8)),
    "experts": MatrixView.of_last_axes((3, 20, 8)),
    "next": MatrixView((8, 2, 10), (0,), (1, 2)),
}


@pytest.mark.parametrize("scaling", ["moonlight", "mup"])
def test_transposed_members_move_as_they_would_alone(rng, scaling):
    """Also where the factor of a step differs between wide and tall matrices."""
    start = {n: rng.normal(size=v.shape) for n, v in ORIENTATIONS.items()}
    gradients = [rng.normal(size=view.shape) for view in ORIENTATIONS.values()]
    moved = []
    for batched, stacked in ((False, [1, 1, 3, 1]), (True, [6])):
        variables = [keras.Variable(value, name=name) for name, value in start.items()]
        optimizer = Muon(0.1, scaling=scaling, batched=batched, routes=ORIENTATIONS)
        optimizer.build(variables)
        assert [count for count, _ in optimizer.plans] == stacked
        optimizer.apply([keras.ops.convert_to_tensor(g, "float32") for g in gradients])
        moved.append([keras.ops.convert_to_numpy(v.value) for v in variables])
    for alone, together in zip(*moved, strict=True):
        np.testing.assert_allclose(together, alone, atol=TOLERANCE)


def test_stacks_never_join_two_dtypes():
    """A float64 kernel keeps its precision."""
    dtypes = ["float32", "float64", "float32"]
    assert stacks(views("dense", "dense", "query"), dtypes, True) == [[0, 2], [1]]


def test_stacks_of_one_when_not_batched():
    """False leaves every matrix alone."""
    assert stacks(views("dense", "query"), ["float32"] * 2, False) == [[0], [1]]


def test_no_matrices_make_no_stacks():
    """A model of biases alone."""
    assert stacks([], [], True) == []


@pytest.mark.parametrize(
    ("backend", "accelerator", "expected"),
    [
        ("torch", False, [[0], [1], [2, 3]]),
        ("jax", False, [[0, 1], [2, 3]]),
        ("tensorflow", False, [[0, 1], [2, 3]]),
        ("torch", True, [[0, 1], [2, 3]]),
        ("jax", True, [[0, 1], [2, 3]]),
    ],
)
def test_auto_stacks_what_gains(monkeypatch, backend, accelerator, expected):
    """Large matrices on a CPU only where a graph is compiled, all else together."""
    monkeypatch.setattr(batching, "runs_on_accelerator", lambda: accelerator)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    large = MatrixView((512, 512), (0,), (1,))
    chosen = [large, large, *views("dense", "query")]
    assert stacks(chosen, ["float32"] * 4, "auto") == expected


def test_auto_knows_where_it_runs(backend):
    """What decides for "auto" agrees with what the machine has."""
    if backend == "torch":
        found = torch.cuda.is_available() or torch.backends.mps.is_available()
    else:
        devices = keras.distribution.list_devices()
        found = any(not name.startswith("cpu") for name in devices)
    assert runs_on_accelerator() == found
