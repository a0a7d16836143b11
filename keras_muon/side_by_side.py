"""Buckets of matrices side by side on the cores of a CPU, on torch.

Torch gives all of its threads to one operation at a time. A product of some hundred
rows keeps few of them busy, and between two products all wait for the slowest; what is
written per weight has one. The updates of two buckets do not depend on each other: each
gets a thread of Python, which torch leaves while it computes, and its share of torch's
threads.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import keras

from keras_muon.batching import LEAST_SMALL_STACKED_ON_CPU

# Of the entries of all matrices. What one needs beside its state takes 3.5 times its
# bytes, so that these take less than half of those of the momenta.
SHARE_AT_A_TIME = 1 / 8

# Threads of Python hold its lock for 1 ms of the 15 or more that a matrix takes.
MOST_AT_A_TIME = 8

# New threads take 2 ms. A step of so many multiplications per product takes 6 ms of two
# cores without them; 126 matrices of 32 to 128 have twice as many, and gain a tenth.
LEAST_SHARED_OUT = 2**25

# The longest task over what each thread has on average. Two tasks of 1 and 2 parts, at
# 1.33, take half as long again as one after the other.
MOST_UNEVEN = 1.25


class Task(NamedTuple):
    """Something to do that depends on no other task.

    Args:
        run: What to do.
        at_a_time: How many like it may be at work at a time.
        multiplications: Of one product of each of its matrices.
    """

    run: Callable[[], object]
    at_a_time: int = 1
    multiplications: int = 0


def buckets_at_a_time(entries: int, entries_of_all: int) -> int:
    """Return how many buckets of a size are worked on at a time, on torch on a CPU.

    Args:
        entries: Entries of such a bucket.
        entries_of_all: Entries of all matrices.

    Returns:
        1 where torch has a single thread, or would not keep its settings apart by
        thread; and while it compiles.
    """
    import torch

    if torch.compiler.is_compiling() or not torch.backends.openmp.is_available():
        return 1
    most = min(torch.get_num_threads(), MOST_AT_A_TIME)
    room = SHARE_AT_A_TIME * entries_of_all
    if room < LEAST_SMALL_STACKED_ON_CPU:
        # Of so few entries a single full stack takes more than its share, and what is
        # smaller keeps it company.
        room = 2 * LEAST_SMALL_STACKED_ON_CPU
        entries = max(entries, LEAST_SMALL_STACKED_ON_CPU)
    return max(1, min(most, int(room / entries)))


def side_by_side(tasks: Sequence[Task]) -> None:
    """Do tasks, several at a time, the longest first, or else in their order.

    Args:
        tasks: What to do. Gradients are not recorded where several are at work.
    """
    ordered = sorted(tasks, key=lambda task: task.at_a_time)
    for count, group in itertools.groupby(ordered, key=lambda task: task.at_a_time):
        alike = list(group)
        workers = min(count, _even_workers([task.multiplications for task in alike]))
        if workers > 1:
            _shared_out(alike, workers)
            continue
        for task in alike:
            task.run()


def _even_workers(multiplications: Sequence[int]) -> int:
    """Return among how many threads tasks can be shared out evenly; 1 if too little."""
    total = sum(multiplications)
    if total < LEAST_SHARED_OUT:
        return 1
    even = int(MOST_UNEVEN * total / max(multiplications))
    return min(even, len(multiplications))


def _shared_out(tasks: Sequence[Task], workers: int) -> None:
    import torch

    threads, inferring = torch.get_num_threads(), torch.is_inference_mode_enabled()
    left = iter(sorted(tasks, key=lambda task: -task.multiplications))

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
