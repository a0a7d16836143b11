"""Large matrices side by side on the cores of a CPU, on torch.

Torch gives all of its threads to one operation at a time. A product of some hundred
rows keeps few of them busy, and between two products all wait for the slowest; what is
written per weight has one. The updates of two matrices do not depend on each other:
each gets a thread of Python, which torch leaves while it computes, and its share of
torch's threads.

Stacks of small matrices gain nothing reliably: the same ones were 1.1 to 1.2 times as
fast on one processor, and 0.6 to 0.9 times on another.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import keras

# Of the entries of all matrices. What one needs beside its state takes 3.5 times its
# bytes, so that these take less than half of those of the momenta.
SHARE_AT_A_TIME = 1 / 8

# Threads of Python hold its lock for 1 ms of the 15 or more that a large matrix takes.
MOST_AT_A_TIME = 8

# The thread that has most to do over what each has on average. Two tasks of 1 and 2
# parts, at 1.33, take half as long again as one after the other.
MOST_UNEVEN = 1.25


class Task(NamedTuple):
    """Something to do that depends on no other task.

    Args:
        run: What to do.
        at_a_time: How many like it may be at work at a time.
        operations: Of its matrix products.
    """

    run: Callable[[], object]
    at_a_time: int = 1
    operations: float = 0.0


def matrices_at_a_time(entries: int, entries_of_all: int) -> int:
    """Return how many matrices of a size are worked on at a time, on torch on a CPU.

    Args:
        entries: Entries of such a matrix.
        entries_of_all: Entries of all matrices.

    Returns:
        1 where torch has a single thread, or would not keep its settings apart by
        thread; and while it compiles.
    """
    import torch

    if torch.compiler.is_compiling() or not torch.backends.openmp.is_available():
        return 1
    most = min(torch.get_num_threads(), MOST_AT_A_TIME)
    return max(1, min(most, int(SHARE_AT_A_TIME * entries_of_all / entries)))


def side_by_side(tasks: Sequence[Task]) -> None:
    """Do tasks, in their order, and then those that may have company.

    Args:
        tasks: What to do. Gradients are not recorded where several are at work.
    """
    for task in tasks:
        if task.at_a_time == 1:
            task.run()
    together = [task for task in tasks if task.at_a_time > 1]
    workers = _workers(together) if together else 1
    if workers > 1:
        _shared_out(together, workers)
        return
    for task in together:
        task.run()


def _workers(tasks: Sequence[Task]) -> int:
    """Return the most threads among which tasks are shared out well.

    As many as divide those of torch, since all of them would wait for idle ones.
    """
    import torch

    total = sum(task.operations for task in tasks)
    threads = torch.get_num_threads()
    most = min(task.at_a_time for task in tasks)
    return max(
        workers
        for workers in range(1, most + 1)
        if threads % workers == 0
        and _longest(tasks, workers) * workers <= MOST_UNEVEN * total
    )


def _longest(tasks: Sequence[Task], workers: int) -> float:
    """Return the operations of the thread that has most to do."""
    loads = [0.0] * workers
    for task in _longest_first(tasks):
        loads[loads.index(min(loads))] += task.operations
    return max(loads)


def _longest_first(tasks: Sequence[Task]) -> list[Task]:
    return sorted(tasks, key=lambda task: -task.operations)


def _shared_out(tasks: Sequence[Task], workers: int) -> None:
    import torch

    threads, inferring = torch.get_num_threads(), torch.is_inference_mode_enabled()
    left = iter(_longest_first(tasks))

    def work() -> None:
        # All of these are settings of a thread. That of Keras would be a GPU.
        recording = torch.inference_mode() if inferring else torch.no_grad()
        own = _threads_of_torch(threads // workers, threads)
        with own, keras.device("cpu"), recording:
            for task in left:
                task.run()

    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work) for _ in range(workers)]:
            done.result()


@contextlib.contextmanager
def _threads_of_torch(count: int, default: int) -> Iterator[None]:
    """Give this thread a number of torch's threads, and later ones the default.

    Torch keeps the number for a thread, and for all that will begin. A thread takes
    the latter when it first asks, so it must have asked before it is told another one.
    """
    import torch

    torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(default)
