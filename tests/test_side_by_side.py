"""Buckets are updated side by side on torch, and nothing else changes."""

import functools
import threading

import keras
import numpy as np
import pytest

from keras_muon import Muon, matrix_optimizer
from keras_muon import side_by_side as sides
from keras_muon.batching import LEAST_SMALL_STACKED_ON_CPU
from keras_muon.side_by_side import (
    LEAST_SHARED_OUT,
    Task,
    buckets_at_a_time,
    side_by_side,
)

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only torch computes one at a time"
)

LARGE, SMALL = (320, 260), (64, 64)
# Multiplications of a task that is worth a thread.
ENOUGH = LEAST_SHARED_OUT
SETTINGS = {
    "by default": ({}, 2),
    "one by one": ({"batched": False}, 1),
    "in one stack": ({"batched": True}, 1),
    "steps may be skipped": ({"nonfinite": "skip"}, 1),
}


@pytest.fixture(autouse=True)
def four_threads():
    """More than any machine of tests may have, so that there is something to share."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def tasks_of(runs, at_a_time=2):
    return [Task(run, at_a_time, ENOUGH) for run in runs]


def threads_of_a_new_thread():
    import torch

    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def optimizer_and_weights(shapes=(LARGE,) * 16, dtype="float32", **settings):
    rng = np.random.default_rng(5)
    weights = [
        keras.Variable(rng.normal(size=shape), dtype=dtype, name=f"w{number}")
        for number, shape in enumerate(shapes)
    ]
    optimizer = Muon(1e-2, **{"routes": {".*": "muon"}} | settings)
    optimizer.build(weights)
    return optimizer, weights


def stepped(**settings):
    import torch

    optimizer, weights = optimizer_and_weights(**settings)
    rng = np.random.default_rng(6)
    for _ in range(3):
        gradients = [rng.normal(size=w.shape).astype("float32") for w in weights]
        optimizer.apply([torch.from_numpy(gradient) for gradient in gradients])
    return [w.numpy() for w in [*weights, *optimizer.variables]]


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(
    "shapes", [(LARGE,) * 16, ((96, 96), (96, 120)) * 24], ids=["large", "in stacks"]
)
def test_weights_and_state_are_those_of_one_after_another(
    monkeypatch, shapes, nesterov
):
    """Sums differ in order where an operation has several threads, no more."""
    settings = {"shapes": shapes, "nesterov": nesterov}
    shared, together = [], []
    real = sides._shared_out
    with monkeypatch.context() as context:
        context.setattr(sides, "_shared_out", lambda *a: shared.append(real(*a)))
        together = stepped(**settings)
    assert shared == [None] * 3
    monkeypatch.setattr(matrix_optimizer, "buckets_at_a_time", lambda *_: 1)
    for value, wanted in zip(together, stepped(**settings), strict=True):
        # None seen. A factor rounded to the next number of bfloat16 is 1e-5 off; the
        # steps move an entry by 3e-3.
        np.testing.assert_allclose(value, wanted, rtol=0, atol=5e-5)


def test_threads_are_shared_and_given_back():
    """Two at a time have two threads each, from threads that record no gradients."""
    import torch

    meeting, seen = threading.Barrier(2, timeout=30), []

    def task():
        meeting.wait()  # Passes only if another one is at work.
        seen.append((torch.get_num_threads(), torch.is_grad_enabled()))

    side_by_side(tasks_of([task] * 6))
    assert seen == [(2, False)] * 6
    assert torch.get_num_threads() == threads_of_a_new_thread() == 4


def test_a_thread_keeps_its_share_when_another_one_is_done():
    """The first to end gives later threads their number back, not those at work."""
    import torch

    meeting, seen = threading.Barrier(2, timeout=30), []

    def long():
        meeting.wait()
        # Until the other one has ended: it has nothing left to do.
        assert any(threads_of_a_new_thread() == 4 for _ in range(10_000))
        seen.append(torch.get_num_threads())

    side_by_side(tasks_of([meeting.wait, long]))
    assert seen == [2]


def test_tasks_of_a_count_go_together_and_one_alone_stays_here():
    """A single task of its kind is done by the thread that asks."""
    done, here = [], threading.get_ident()
    counts = [1, 3, 2, 3, 1, 3]

    def task(number):
        return lambda: done.append((number, threading.get_ident() == here))

    side_by_side([Task(task(n), counts[n], ENOUGH) for n in range(6)])
    assert sorted(done) == [(n, counts[n] != 3) for n in range(6)]
    assert [number for number, _ in done][:3] == [0, 4, 2]


def test_an_error_arrives_and_threads_are_given_back():
    """What a task raises is raised here."""

    def fail():
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        side_by_side(tasks_of([fail] * 4))
    assert threads_of_a_new_thread() == 4


def test_inference_mode_goes_along():
    """Tensors made in it may be written into nowhere else."""
    import torch

    with torch.inference_mode():
        tensors = [torch.ones(2) for _ in range(4)]
        side_by_side(tasks_of(tensor.zero_ for tensor in tensors))
    assert all(float(tensor.sum()) == 0.0 for tensor in tensors)


@pytest.mark.parametrize("name", SETTINGS)
def test_only_what_is_stepped_in_place_is_side_by_side(name):
    """Large matrices and stacks of small ones."""
    settings, expected = SETTINGS[name]
    assert optimizer_and_weights(**settings)[0].at_a_time([3]) == expected
    small = optimizer_and_weights((SMALL,) * 16, **settings)[0]
    assert small.at_a_time(range(16)) == expected


def test_what_takes_longest_begins():
    """So that no thread has a long one left when the others are done."""
    begun, multiplications = [], [1, 4, 2, 8, 4, 5]
    meeting = threading.Barrier(2, timeout=30)

    def task(number):
        def run():
            begun.append(number)
            meeting.wait()

        return Task(run, 2, multiplications[number] * ENOUGH)

    side_by_side([task(number) for number in range(6)])
    assert set(begun[:2]) == {3, 5}
    assert set(begun[4:]) == {0, 2}


@pytest.mark.parametrize(
    ("multiplications", "workers"),
    [
        ((ENOUGH // 2, ENOUGH // 2), [2]),
        ((ENOUGH // 2 - 1, ENOUGH // 2), []),  # too little for new threads
        ((ENOUGH, 2 * ENOUGH), []),  # one would wait for the other
        ((ENOUGH, 2 * ENOUGH, ENOUGH), [2]),
        ((4 * ENOUGH, ENOUGH, 4 * ENOUGH, ENOUGH), [3]),
        ((ENOUGH,) * 9, [4]),
    ],
)
def test_there_are_as_many_threads_as_gain(monkeypatch, multiplications, workers):
    """Of four that there may be; all tasks are done by whom it may be."""
    done, seen = [], []
    real = sides._shared_out

    def spy(tasks, count):
        seen.append(count)
        real(tasks, count)

    monkeypatch.setattr(sides, "_shared_out", spy)
    run = functools.partial(done.append, None)
    side_by_side([Task(run, 4, number) for number in multiplications])
    assert (seen, len(done)) == (workers, len(multiplications))


def test_one_at_a_time_they_keep_their_order():
    """Where a graph is traced, each bucket waits for the one before."""
    done = []
    tasks = [Task(functools.partial(done.append, n), 1, n * ENOUGH) for n in range(4)]
    side_by_side(tasks)
    assert done == [0, 1, 2, 3]


def test_adamw_keeps_all_threads():
    """It multiplies no matrices, and its memory is the limit."""
    optimizer = optimizer_and_weights(routes={".*": "adamw"})[0]
    assert (optimizer.at_a_time([0, 1]), optimizer.multiplications([0, 1])) == (1, 0)


def test_master_copies_and_stateless_steps_are_one_after_the_other():
    """Neither is written in place."""
    assert optimizer_and_weights(dtype="bfloat16")[0].at_a_time([3]) == 1
    optimizer, weights = optimizer_and_weights()
    asked = []
    object.__setattr__(
        optimizer,
        "at_a_time",
        lambda i: asked.append(type(optimizer).at_a_time(optimizer, i)) or 1,
    )
    values = [w.value for w in weights]
    optimizer.stateless_apply([v.value for v in optimizer.variables], values, values)
    assert asked == [1] * 16


@pytest.mark.parametrize(
    ("entries", "threads", "expected"),
    [
        (1024 * 1024, 1, 1),  # a single thread
        (1024 * 1024, 3, 3),
        (1024 * 1024, 64, 8),  # no more than the lock of Python serves
        (1024 * 4096, 8, 4),  # an eighth of all entries
        (1024 * 8192, 8, 2),
        (4096 * 8192, 8, 1),  # never none
    ],
)
def test_how_many_at_a_time(entries, threads, expected):
    """Of 128 million entries in all."""
    import torch

    torch.set_num_threads(threads)
    assert buckets_at_a_time(entries, 2**27) == expected


def test_of_few_entries_more_may_be_at_work():
    """Two full stacks of small ones, which are more than an eighth of all."""
    full = LEAST_SMALL_STACKED_ON_CPU
    assert buckets_at_a_time(full // 8, 4 * full) == 2
    assert buckets_at_a_time(full, 4 * full) == 2
    assert buckets_at_a_time(full, 8 * full) == 1
    assert buckets_at_a_time(full, 16 * full) == 2


def test_without_openmp_and_inside_of_a_compiler_none(monkeypatch):
    """Threads would not have settings of their own; a graph has no threads."""
    import torch

    assert buckets_at_a_time(2**20, 2**27) == 4
    with monkeypatch.context() as context:
        context.setattr(torch.backends.openmp, "is_available", lambda: False)
        assert buckets_at_a_time(2**20, 2**27) == 1
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert buckets_at_a_time(2**20, 2**27) == 1
