"""Tasks that threads share: which, among how many, in which order."""

import functools
import threading

import keras
import pytest

from keras_muon import side_by_side as sides
from keras_muon.side_by_side import Task, matrices_at_a_time, side_by_side

pytestmark = [
    pytest.mark.usefixtures("four_threads"),
    pytest.mark.skipif(
        keras.backend.backend() != "torch", reason="only torch computes one at a time"
    ),
]


def tasks_of(runs, at_a_time=2):
    return [Task(run, at_a_time, 1.0) for run in runs]


def threads_of_a_new_thread():
    import torch

    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


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


def test_what_takes_longest_begins():
    """So that no thread has a long one left when the others are done."""
    begun, operations = [], [1, 4, 2, 8, 4, 5]
    meeting = threading.Barrier(2, timeout=30)

    def task(number):
        def run():
            begun.append(number)
            meeting.wait()

        return Task(run, 2, operations[number])

    side_by_side([task(number) for number in range(6)])
    assert set(begun[:2]) == {3, 5}
    assert set(begun[4:]) == {0, 2}


@pytest.mark.parametrize(
    ("operations", "at_a_time", "workers"),
    [
        ((1, 1), 4, [2]),
        ((1, 2), 4, []),  # one would wait for the other
        ((1, 2, 1), 4, [2]),
        ((1,) * 9, 4, [2]),  # four threads would do 3 each of 2.25
        ((1,) * 44, 4, [4]),
        ((1,) * 44, 3, [2]),  # of four threads, three would leave one idle
    ],
)
def test_there_are_as_many_threads_as_gain(monkeypatch, operations, at_a_time, workers):
    """All tasks are done, by whoever does them."""
    done, seen = [], []
    real = sides._shared_out

    def spy(tasks, count):
        seen.append(count)
        real(tasks, count)

    monkeypatch.setattr(sides, "_shared_out", spy)
    run = functools.partial(done.append, None)
    side_by_side([Task(run, at_a_time, number) for number in operations])
    assert (seen, len(done)) == (workers, len(operations))


def test_who_needs_all_threads_is_done_before(monkeypatch):
    """In their order: where a graph is traced, each waits for the one before."""
    done, counts = [], [1, 4, 2, 1, 3]
    shared = []
    monkeypatch.setattr(sides, "_shared_out", lambda *a: shared.append(a))
    tasks = [
        Task(functools.partial(done.append, n), count, 5 - n)
        for n, count in enumerate(counts)
    ]
    side_by_side(tasks)
    assert done == [0, 3]
    assert shared == [([tasks[1], tasks[2], tasks[4]], 2)]


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
    assert matrices_at_a_time(entries, 2**27) == expected


def test_without_openmp_and_inside_of_a_compiler_none(monkeypatch):
    """Threads would not have settings of their own; a graph has no threads."""
    import torch

    assert matrices_at_a_time(2**20, 2**27) == 4
    with monkeypatch.context() as context:
        context.setattr(torch.backends.openmp, "is_available", lambda: False)
        assert matrices_at_a_time(2**20, 2**27) == 1
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert matrices_at_a_time(2**20, 2**27) == 1
