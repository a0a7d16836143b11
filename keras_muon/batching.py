"""Which matrices go through one Newton-Schulz iteration as a stack."""

import collections
import math
from collections.abc import Sequence

import keras

from keras_muon.devices import runs_on_accelerator
from keras_muon.matrix_view import MatrixView
from keras_muon.plan_choice import is_small

# Entries of a stack of large matrices on an accelerator, where a few copies are alive
# at a time: 256 MiB of float32.
MOST_STACKED = 2**26

# On a CPU one copy is. A stack holds 16 MiB of float32, or a share of all matrices, so
# that the number of stacks, each a part of the graph, is limited however deep a model.
LEAST_STACKED_ON_CPU = 2**22
SHARE_STACKED_ON_CPU = 1 / 8

# Without XLA, which fuses what surrounds the iteration, four copies are. 4 blocks of
# GPT-2 small take 1.33 times the bytes of their momenta, state included.
LEAST_STACKED_WITHOUT_XLA = 2**20
SHARE_STACKED_WITHOUT_XLA = 1 / 16

# Small matrices go together up to 2 MiB of float32 at least. Four copies are alive, and
# more would not stay in caches: one stack of 1000 x 64 x 64 is slower than eight.
LEAST_SMALL_STACKED_ON_CPU = 2**19
SHARE_SMALL_STACKED_ON_CPU = 1 / 10

# In a graph two stacks or more are computed at a time, each by one thread, see
# `keras_muon.waiting`. So none holds more than half of all small matrices there, or on
# JAX, which compiles a stack in less time than TensorFlow, a twelfth; unless they are
# few. On TensorFlow two stacks take 0.9 of the time of one at 64 x 64 x 64, and no less
# at 32 x 64 x 64. On JAX 72 matrices of 128 x 128 and 128 x 512 take 0.75 of the time
# of stacks of 3 * 2**17 entries.
LEAST_SMALL_STACKED_IN_GRAPH = {"tensorflow": 2**17, "jax": 9 * 2**14}
MOST_SMALL_STACKED_IN_GRAPH = {"tensorflow": 3 * 2**17, "jax": 2**19}
SHARE_SMALL_STACKED_IN_GRAPH = {"tensorflow": 1 / 2, "jax": 1 / 12}

# In deep models stacks grow, for the graph to stay small.
SHARE_SMALL_STACKED_IN_DEEP_GRAPH = 1 / 20

# On JAX a stack is about a quarter of the work on all small matrices at most, counted
# in entries times rows of the shorter side, unless that is little. 126 matrices of 32
# to 128 take 0.83 of the time of five stacks.
SHARE_OF_WORK = 1 / 4
LEAST_WORK = 2**22

Batched = str | bool


def check_batched(batched: object) -> Batched:
    """Return `batched` if it is "auto", True or False, or refuse it."""
    if batched is True or batched is False:
        return batched
    if isinstance(batched, str) and batched == "auto":
        return batched
    raise ValueError(f"`batched` must be 'auto', True or False; received {batched!r}.")


def stacks(
    views: Sequence[MatrixView],
    dtypes: Sequence[str],
    batched: Batched,
    *,
    xla: bool = True,
) -> list[list[int]]:
    """Group matrices of equal (fan_in, fan_out, dtype), whatever their kernels' ranks.

    Small matrices and transposed ones go together, see `one_orientation`: a copy of
    them is nothing beside a graph of their own.

    Args:
        views: The matrix view of each kernel.
        dtypes: The dtype of each kernel's momentum.
        batched: True to stack all, False none, `"auto"` those that gain, in stacks of
            limited size: all on accelerators; on CPUs the small ones, and where a
            graph is compiled also the large ones, for it to stay small.
        xla: Whether XLA compiles the graph, where TensorFlow has the choice.

    Returns:
        Lists of positions, in the order of their first member.

    Example:
        >>> square = MatrixView.of_last_axes((8, 8))
        >>> stacks([square, square], ["float32", "float32"], True)
        [[0, 1]]
    """
    limits = {small: _most_stacked(views, xla, small) for small in (True, False)}
    most_work = _most_work(views)
    kinds = [(*_kind(v), dtype) for v, dtype in zip(views, dtypes, strict=True)]
    totals: dict[tuple, int] = collections.Counter()
    for kind, view in zip(kinds, views, strict=True):
        totals[kind] += view.entries
    groups: dict[tuple, list[int]] = {}
    entries: dict[tuple, int] = collections.Counter()
    for position, (kind, view) in enumerate(zip(kinds, views, strict=True)):
        # As equal as can be: the largest is what needs memory, and the time of others.
        small = _is_small(view)
        limit = min(limits[small], most_work / kind[0]) if small else limits[small]
        count = math.ceil(totals[kind] / limit)
        stack = entries[kind] * count // totals[kind]
        entries[kind] += view.entries
        place = _place(view, batched, position, stack)
        groups.setdefault((*kind, place), []).append(position)
    return list(groups.values())


def one_orientation(views: Sequence[MatrixView]) -> list[MatrixView]:
    """Return the views of a stack, transposed where they are not as the first.

    The polar factor of a transposed matrix is the transposed polar factor.

    Example:
        >>> kernels = MatrixView.of_last_axes((8, 4)), MatrixView.of_last_axes((4, 8))
        >>> [view.matrix_shape for view in one_orientation(kernels)]
        [(1, 8, 4), (1, 8, 4)]
    """
    fan_in = views[0].fan_in
    return [view if view.fan_in == fan_in else view.turned for view in views]


def _is_small(view: MatrixView) -> bool:
    return is_small(view.fan_in, view.fan_out)


def _kind(view: MatrixView) -> tuple[int, int]:
    """Return the extents of the matrices that may share a stack with these."""
    fans = (view.fan_in, view.fan_out)
    return (min(fans), max(fans)) if _is_small(view) else fans


def _place(view: MatrixView, batched: Batched, position: int, stack: int) -> int:
    """Return which of the stacks of its kind takes a kernel.

    Args:
        view: Its matrix view.
        batched: See `stacks`.
        position: Its own number, for a stack of its own.
        stack: The number of the stack that has room for it.
    """
    if batched != "auto":
        return 0 if batched else position
    # Eager torch has no graph to keep small.
    eager = keras.backend.backend() == "torch" and not runs_on_accelerator()
    return position if eager and not _is_small(view) else stack


def _most_work(views: Sequence[MatrixView]) -> float:
    """Return the entries times rows of a stack of small matrices, on JAX on a CPU."""
    if keras.backend.backend() != "jax" or runs_on_accelerator():
        return math.inf
    small = [view for view in views if _is_small(view)]
    work = sum(view.entries * min(view.fan_in, view.fan_out) for view in small)
    return max(LEAST_WORK, SHARE_OF_WORK * work)


def _most_stacked(views: Sequence[MatrixView], xla: bool, small: bool) -> int:
    """Return the entries of a stack of small or of large matrices."""
    if runs_on_accelerator():
        return MOST_STACKED
    backend = keras.backend.backend()
    if small and backend != "torch":
        return _most_small_in_graph(views, backend)
    if small:
        least, share = LEAST_SMALL_STACKED_ON_CPU, SHARE_SMALL_STACKED_ON_CPU
    elif xla:
        least, share = LEAST_STACKED_ON_CPU, SHARE_STACKED_ON_CPU
    else:
        least, share = LEAST_STACKED_WITHOUT_XLA, SHARE_STACKED_WITHOUT_XLA
    return max(least, math.ceil(share * sum(view.entries for view in views)))


def _most_small_in_graph(views: Sequence[MatrixView], backend: str) -> int:
    """Return the entries of a stack of small matrices on TensorFlow or JAX."""
    small = sum(view.entries for view in views if _is_small(view))
    part = math.ceil(SHARE_SMALL_STACKED_IN_GRAPH[backend] * small)
    least = max(LEAST_SMALL_STACKED_IN_GRAPH[backend], part)
    deep = SHARE_SMALL_STACKED_IN_DEEP_GRAPH * sum(view.entries for view in views)
    return max(min(MOST_SMALL_STACKED_IN_GRAPH[backend], least), math.ceil(deep))
