"""Values that a compiler cannot see through, to steer it where nothing else does.

XLA orders operations, and tells equal kernels from others, by the data that they take.
It drops `optimization_barrier` before it decides either.
"""

import contextlib
import contextvars
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_muon.devices import runs_on_accelerator

Tensor = Any
Variable = Any

_shared: contextvars.ContextVar[dict | None] = contextvars.ContextVar(
    "shared", default=None
)


def is_compiled_on_cpu(tensor: Tensor) -> bool:
    """Whether a tensor belongs to a graph that XLA may compile, for a CPU."""
    if keras.backend.backend() == "jax":
        import jax

        traced = isinstance(tensor, jax.core.Tracer)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        traced = not tf.executing_eagerly()
    else:
        return False
    return traced and not runs_on_accelerator()


def after(before: Variable, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors unchanged, that can be computed only after a variable's value.

    Args:
        before: A variable with an entry at least.
        tensors: Tensors of one dtype.
    """
    entry = entry_of(before)
    # Never true, whatever the entry: an infinity passes nothing on either.
    impossible = ops.logical_and(ops.isnan(entry), ops.isfinite(entry))
    zero = ops.cast(impossible, tensors[0].dtype)
    return [tensor + zero for tensor in tensors]


def entry_of(variable: Variable) -> Tensor:
    """Return the first entry of a variable's value."""
    value = ops.convert_to_tensor(variable)
    return value[(0,) * len(value.shape)]


def opaque_parts(stack: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Cut a stack of matrices into parts, at places that a compiler does not know.

    XLA compiles a kernel of its own for a slice at a known place, in 17 ms; those at
    unknown places share one.

    Args:
        stack: Matrices (count, in, out).
        counts: How many go into each of two or more parts.
    """
    ends = itertools.accumulate(counts)
    begins = [end - count for end, count in zip(ends, counts, strict=True)]
    fans = stack.shape[1:]
    # The fewest operations: TensorFlow would pack what JAX takes apart, and JAX asks of
    # each place that has a sign whether it counts from the end.
    if keras.backend.backend() == "tensorflow":
        places = opaque([[begin, 0, 0] for begin in begins], "int32")
    else:
        zero = np.uint32(0)
        places = [(place, zero, zero) for place in opaque(begins, "uint32")]
    sizes = {count: shared_constant((count, *fans), "int32") for count in set(counts)}
    return [
        ops.slice(stack, place, sizes[count])
        for place, count in zip(places, counts, strict=True)
    ]


def shared_constant(value: Any, dtype: Any) -> Any:
    """Return a value as what many operations of a graph may take.

    TensorFlow makes a node of a number for each of them: a tenth of all nodes where
    matrices are small and many. To others a number is no operation.

    Args:
        value: A number, or a tuple of them.
        dtype: Of the tensor, on TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        return value
    return ops.convert_to_tensor(value, dtype)


@contextlib.contextmanager
def shared_opaque_values() -> Iterator[None]:
    """Make equal opaque numbers once, for all that is traced inside.

    A loop for each stack takes a twelfth of the first call where stacks are small. What
    is traced apart, as a branch is, needs numbers of its own.
    """
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def opaque(numbers: Sequence[Any], dtype: str) -> list[Tensor]:
    """Return numbers, or rows of them, as tensors whose values a compiler cannot know.

    Args:
        numbers: Two or more.
        dtype: Of the tensors.
    """
    shared = _shared.get()
    if shared is None:
        return _turned(numbers, dtype)
    key = (repr(list(numbers)), dtype)
    if key not in shared:
        shared[key] = _turned(numbers, dtype)
    return shared[key]


def _turned(numbers: Sequence[Any], dtype: str) -> list[Tensor]:
    turns = 2  # XLA computes what follows from a single turn
    start = [numbers[i - turns] for i in range(len(numbers))]
    _, *turned = ops.while_loop(
        lambda turn, *_: turn < turns,
        lambda turn, first, *others: (turn + 1, *others, first),
        [
            ops.convert_to_tensor(0, "int32"),
            *(ops.convert_to_tensor(number, dtype) for number in start),
        ],
    )
    return turned
