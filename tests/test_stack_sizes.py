"""How many matrices a stack holds, and over how many stacks they are spread."""

import types

import keras
import pytest

from keras_muon import MatrixView, batching
from keras_muon.batching import stacks
from keras_muon.waiting import Waiting


@pytest.mark.parametrize(
    ("accelerator", "entries"), [(False, 2**22), (True, 2**26)], ids=["cpu", "other"]
)
def test_stacks_of_large_matrices_are_limited(monkeypatch, accelerator, entries):
    """Matrices for more than one are spread over equal stacks, in their order.

    Two kinds fill stacks of their own.
    """
    monkeypatch.setattr(batching, "runs_on_accelerator", lambda: accelerator)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    large, wide = (MatrixView((1024, n), (0,), (1,)) for n in (1024, 2048))
    full = entries // 2**20
    chosen = [large, wide] + [large] * full
    first, *others = [0, *range(2, full + 2)]
    expected = [[first, *others[: full // 2]], [1], others[full // 2 :]]
    assert stacks(chosen, ["float32"] * len(chosen), "auto") == expected


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_stacks_of_small_matrices_are_limited(monkeypatch, backend):
    """To 2 MiB of float32, or a tenth of all: what a stack needs grows with it.

    In a graph, where two are computed at a time, to less: on JAX first by the work,
    then by what is least, then by half of what is computed at a time.
    """
    monkeypatch.setattr(batching, "runs_on_accelerator", lambda: False)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    small = MatrixView((64, 64), (0,), (1,))
    sizes = [
        [len(s) for s in stacks([small] * n, ["float32"] * n, "auto")]
        for n in (128, 256, 2560)
    ]
    if backend == "torch":
        assert sizes == [[128], [128, 128], [256] * 10]
    elif backend == "tensorflow":
        assert sizes == [[64, 64], [86, 85, 85], [128] * 20]
    else:
        assert sizes == [[32] * 4, [32] * 8, [128] * 20]


def test_stacks_on_jax_share_the_work(monkeypatch):
    """A product of twice the rows is more work for the same entries.

    A stack has about a quarter of it at most, unless there is little.
    """
    monkeypatch.setattr(batching, "runs_on_accelerator", lambda: False)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    square, wide, long, large = (
        MatrixView(shape, (0,), (1,))
        for shape in ((128, 128), (64, 128), (128, 64), (512, 512))
    )
    for chosen, sizes in (
        ([square] * 2, [2]),
        ([square] * 3, [2, 1]),
        ([square] * 18 + [wide] * 36, [6, 6, 6, 18, 18]),
        ([square] * 18 + [wide, long] * 18, [6, 6, 6, 18, 18]),
        ([square] * 24 + [wide] * 4, [6] * 4 + [4]),
        ([square] * 8 + [large] * 4, [2] * 4 + [4]),
    ):
        found = stacks(chosen, ["float32"] * len(chosen), "auto")
        assert [len(stack) for stack in found] == sizes


def test_few_small_matrices_stay_together(monkeypatch):
    """From 2**17 entries on a second stack saves more than it costs to compile.

    Halves are of all small matrices: kinds that share the work equally stay whole.
    """
    monkeypatch.setattr(batching, "runs_on_accelerator", lambda: False)
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    square, wide = (MatrixView((64, n), (0,), (1,)) for n in (64, 128))
    for chosen, sizes in (
        ([square] * 32, [32]),
        ([square] * 34, [17, 17]),
        ([square] * 64 + [wide] * 32, [64, 32]),
        ([square] * 64 + [wide] * 48, [64, 24, 24]),
    ):
        found = stacks(chosen, ["float32"] * len(chosen), "auto")
        assert [len(stack) for stack in found] == sizes


def test_stacks_are_smaller_where_nothing_is_fused(monkeypatch):
    """TensorFlow without XLA holds more copies of a stack at a time."""
    monkeypatch.setattr(batching, "runs_on_accelerator", lambda: False)
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    large = MatrixView((1024, 1024), (0,), (1,))
    sizes = [
        [len(s) for s in stacks([large] * n, ["float32"] * n, "auto", xla=False)]
        for n in (3, 64)
    ]
    assert sizes == [[1] * 3, [4] * 16]


def test_deep_models_have_no_more_stacks_than_others(monkeypatch):
    """Each stack is a part of the graph: on a CPU they grow with the model, too."""
    monkeypatch.setattr(batching, "runs_on_accelerator", lambda: False)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    large = MatrixView((1024, 1024), (0,), (1,))
    counts = [len(stacks([large] * n, ["float32"] * n, "auto")) for n in (16, 64, 256)]
    assert counts == [4, 8, 8]


@pytest.mark.parametrize("count", [256, 1024, 2560, 10240])
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_stacks_of_small_matrices_are_side_by_side(monkeypatch, backend, count):
    """However deep a model: each has one thread, and waits for the last but one."""
    monkeypatch.setattr(batching, "runs_on_accelerator", lambda: False)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    view = MatrixView((64, 64), (0,), (1,))
    found = stacks([view] * count, ["float32"] * count, "auto")
    variables = [types.SimpleNamespace(shape=(64, 64))] * count
    waiting = Waiting(variables)
    groups = [[variables[i] for i in stack] for stack in found]
    awaited = [waiting.awaited_by(group) for group in groups]
    numbers = {id(group): number for number, group in enumerate(groups)}
    for number, group in enumerate(awaited):
        assert group is None or numbers[id(group)] <= number - 2


def test_accelerators_share_no_work(monkeypatch):
    """They take a stack as a whole."""
    monkeypatch.setattr(batching, "runs_on_accelerator", lambda: True)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    square = MatrixView((128, 128), (0,), (1,))
    assert len(stacks([square] * 64, ["float32"] * 64, "auto")) == 1
