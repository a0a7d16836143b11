"""Loops over matrices: each is served, in order, by one piece of graph."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_muon.in_turn import in_turn, in_turn_within

COUNT = 5
tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the others have no such loop"
)


@pytest.fixture
def matrices(rng):
    return rng.normal(size=(COUNT, 3, 2)).astype("float32")


def doubled_less_one(matrix):
    return matrix * 2.0 - 1.0


def test_every_matrix_gets_its_own_result(matrices):
    """In the order in which they come."""
    results = in_turn([ops.convert_to_tensor(m) for m in matrices], doubled_less_one)
    results = [ops.convert_to_numpy(result) for result in results]
    np.testing.assert_array_equal(results, doubled_less_one(matrices))


def test_a_stack_is_replaced_matrix_by_matrix(matrices):
    """The loop that writes into the stack does the same."""
    result = in_turn_within(ops.convert_to_tensor(matrices), doubled_less_one)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(result), doubled_less_one(matrices)
    )


@tensorflow_only
@pytest.mark.parametrize("xla", [False, True])
def test_in_a_graph_the_function_is_there_once(matrices, xla):
    """However many matrices there are; the values are those of eager calls."""
    import tensorflow as tf

    calls = []

    def counted(matrix):
        calls.append(matrix.shape)
        return doubled_less_one(matrix)

    graph = tf.function(lambda *given: in_turn(given, counted), jit_compile=xla)
    results = graph(*map(tf.constant, matrices))
    assert calls == [(3, 2)]
    np.testing.assert_array_equal(
        [ops.convert_to_numpy(result) for result in results],
        doubled_less_one(matrices),
    )


@tensorflow_only
def test_one_matrix_needs_no_loop(matrices):
    """A loop of one turn would only be in the way."""
    import tensorflow as tf

    graph = tf.function(lambda given: in_turn([given], doubled_less_one))
    operations = graph.get_concrete_function(matrices[0]).graph.get_operations()
    assert not [o for o in operations if "While" in o.type]
