"""Which buckets of a compiled step wait for an earlier one, and how they are made to.

All at once would keep the temporary memory of all: 1.7 to 2.3 times that of the
momenta. Small buckets gain from running side by side.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_muon.opaque_values import after, entry_of, is_compiled_on_cpu
from keras_muon.plan_choice import LARGEST_STACKED_ON_CPU

Tensor = Any
Variable = Any

# Entries of buckets of small variables that are updated side by side: XLA gives the
# products of a stack one thread. At 2**20 a step on 72 matrices of 128 x 128 and
# 128 x 512 takes 0.85 of its time at 3 * 2**18 on JAX. At least two stacks fit, see
# `keras_muon.batching`.
MOST_SIDE_BY_SIDE = {"tensorflow": 3 * 2**18, "jax": 2**20}

# Of all entries, in deep models. Four copies of them are alive.
SHARE_SIDE_BY_SIDE = 1 / 10


class Waiting:
    """What the buckets of one step wait for, asked in the order of the buckets.

    Args:
        variables: Those of all buckets.
    """

    def __init__(self, variables: Sequence[Variable]):
        # Eager torch updates in order, and need not ask for sizes in every step.
        self._in_order = keras.backend.backend() == "torch"
        if not self._in_order:
            share = SHARE_SIDE_BY_SIDE * sum(map(_size, variables))
            self._most = max(MOST_SIDE_BY_SIDE[keras.backend.backend()], share)
        self._earlier: list[tuple[int, Sequence[Variable]]] = []

    def awaited_by(self, variables: Sequence[Variable]) -> Sequence[Variable] | None:
        """Return the variables that must be updated before those of the next bucket.

        Args:
            variables: Those of the next bucket.

        Returns:
            Variables of an earlier bucket. None if this one need not wait.
        """
        if self._in_order:
            return None
        sizes = list(map(_size, variables))
        entries = sum(sizes)
        if entries <= LARGEST_STACKED_ON_CPU:
            return None
        # A product of large matrices has all threads.
        most = self._most if max(sizes) <= LARGEST_STACKED_ON_CPU else 0
        before = self._last_beyond(most - entries)
        self._earlier.append((entries, variables))
        return before

    def _last_beyond(self, room: float) -> Sequence[Variable] | None:
        """Return the last bucket that with those after it takes more than the room."""
        for entries, variables in reversed(self._earlier):
            room -= entries
            if room < 0:
                return variables
        return None


@contextlib.contextmanager
def once_updated(
    before: Sequence[Variable] | None, gradients: Sequence[Tensor], *, xla: bool
) -> Iterator[Sequence[Tensor]]:
    """Give gradients that are there once other variables are updated.

    Nothing waits but graphs on a CPU.

    Args:
        before: The other variables. None is no wait.
        gradients: Gradients of one bucket.
        xla: Whether XLA may compile the graph.
    """
    if before is None or not is_compiled_on_cpu(gradients[0]):
        yield gradients
    elif xla:
        # XLA orders operations by the data that they take, and nothing else.
        yield after(before[-1], gradients)
    else:
        import tensorflow as tf

        # All of them: a single thread leaves what nobody waits for to the end. Of
        # reading alone, without an entry, TensorFlow drops the order.
        with tf.control_dependencies(list(map(entry_of, before))):
            yield gradients


def _size(variable: Variable) -> int:
    return math.prod(variable.shape)
