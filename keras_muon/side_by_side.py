"""Matrices side by side on the cores of a CPU, on torch.

Torch gives all of its threads to one operation at a time. A product of some hundred
rows keeps few of them busy, and between two products all wait for the slowest. The
updates of two matrices do not depend on each other: each gets a thread of Python, which
torch leaves while it computes, and its share of torch's threads.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import keras

from keras_muon.plan_choice import LARGEST_STACKED_ON_CPU

Task = Callable[[], object]

# Of the entries of all matrices. What one needs beside its state takes 3.5 times its
# bytes, so that these take less than half of those of the momenta.
SHARE_AT_A_TIME = 1 / 8

# Threads of Python hold its lock for 1 ms of the 15 or more that a matrix takes.
MOST_AT_A_TIME = 8


def matrices_at_a_time(entries: int, entries_of_all: int) -> int:
    """Return how many matrices of a size are worked on at a time, on torch on a CPU.

    Args:
        entries: Entries of such a matrix.
        entries_of_all: Entries of all matrices.

    Returns:
        1 for small ones, which are in stacks; where torch has a single thread, or
        would not keep its settings apart by thread; and while it compiles.
    """
    import torch

    if entries <= LARGEST_STACKED_ON_CPU or torch.compiler.is_compiling():
        return 1
    if not torch.backends.openmp.is_available():
        return 1
    most = min(torch.get_num_threads(), MOST_AT_A_TIME)
    return max(1, min(most, int(SHARE_AT_A_TIME * entries_of_all / entries)))


def side_by_side(tasks: Sequence[Task], counts: Sequence[int]) -> None:
    """Do tasks that do not depend on each other, several at a time.

    Args:
        tasks: What to do. Gradients are not recorded where several are at work.
        counts: How many like it may be at work at a time, for each task.
    """
    pairs = sorted(zip(counts, tasks, strict=True), key=lambda pair: pair[0])
    for count, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        alike = [task for _, task in group]
        count = min(count, len(alike))
        if count > 1:
            _shared_out(alike, count)
            continue
        for task in alike:
            task()


def _shared_out(tasks: Sequence[Task], workers: int) -> None:
    import torch

    threads, inferring = torch.get_num_threads(), torch.is_inference_mode_enabled()
    left = iter(tasks)

    def work() -> None:
        # All of these are settings of a thread. That of Keras would be a GPU.
        recording = torch.inference_mode() if inferring else torch.no_grad()
        own = _threads_of_torch(threads // workers, threads)
        with own, keras.device("cpu"), recording:
            for task in left:
                task()

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
