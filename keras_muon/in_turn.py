"""One function over matrices of equal shape, a few at a time, as one piece of graph."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any

# Of matrices that TensorFlow works on at once. While one is multiplied, what a single
# core does between the products of the other overlaps with it: 1.08 times faster than
# one at a time on 2 cores, and as fast as a graph without a loop.
AT_A_TIME = 2


def in_turn(
    matrices: Sequence[Tensor], function: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Return what a function makes of each matrix, in the shape and dtype given.

    In a graph of TensorFlow the function is there once, in a loop. Matrices go in and
    out through arrays of tensors, which copy none of them.

    Args:
        matrices: Tensors of one shape and dtype.
        function: From such a tensor to another one.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if len(matrices) > 1 and not tf.executing_eagerly():
            return _in_arrays(matrices, function)
    return [function(matrix) for matrix in matrices]


def in_turn_within(stack: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a stack of which each matrix is replaced by what a function makes of it.

    For XLA, which has the stack alone in memory then; one that fills another one needs
    twice as much.

    Args:
        stack: Matrices (count, in, out).
        function: From one of them to a tensor of its shape and dtype.
    """
    count, *fans = stack.shape

    def body(number: Tensor, stack: Tensor) -> Tensor:
        start = (number, 0, 0)
        matrix = ops.reshape(ops.slice(stack, start, (1, *fans)), fans)
        return ops.slice_update(stack, start, ops.reshape(function(matrix), (1, *fans)))

    return ops.fori_loop(0, count, body, stack)


def _in_arrays(
    matrices: Sequence[Tensor], function: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    import tensorflow as tf

    # An array of their own for results: a turn would wait for writing into the first.
    given, results = (
        tf.TensorArray(
            matrices[0].dtype,
            size=len(matrices),
            element_shape=matrices[0].shape,
            clear_after_read=False,
        )
        for _ in range(2)
    )
    for number, matrix in enumerate(matrices):
        given = given.write(number, matrix)

    def body(number: Tensor, results: Any) -> tuple[Tensor, Any]:
        return number + 1, results.write(number, function(given.read(number)))

    _, results = tf.while_loop(
        lambda number, _: number < len(matrices),
        body,
        (tf.constant(0), results),
        parallel_iterations=AT_A_TIME,
        maximum_iterations=len(matrices),
    )
    return [results.read(number) for number in range(len(matrices))]
