"""What orthogonalize() refuses, by the name of the argument."""

import keras
import numpy as np
import pytest

from keras_muon import MatrixView, orthogonalize


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_only_floating_dtypes_are_orthogonalized(dtype):
    """Integers are refused rather than truncated."""
    with pytest.raises(TypeError, match=f"floating dtype; received {dtype}"):
        orthogonalize(np.eye(3).astype(dtype))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "yuo"}, "did you mean 'you'"),
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"steps": 6}, "'auto' has 5 steps"),
        ({"view": MatrixView((4, 3), (0,), (1,))}, r"made for shape \(4, 3\)"),
        ({"compute_dtype": "int32"}, "Unknown `compute_dtype`: 'int32'"),
        ({"compute_dtype": "float23"}, "Unknown `compute_dtype`: 'float23'"),
        ({"compute_dtype": None}, "Unknown `compute_dtype`: None"),
    ],
    ids=str,
)
def test_other_arguments_are_refused_by_name(arguments, message):
    """What is wrong is said before anything is computed."""
    with pytest.raises(ValueError, match=message):
        orthogonalize(np.eye(3, dtype="float32"), **arguments)


def test_a_vector_is_refused():
    """One axis makes no matrix."""
    with pytest.raises(ValueError, match="at least 2 axes"):
        orthogonalize(np.ones(3, "float32"))


@pytest.mark.parametrize(
    ("x", "view", "error", "message"),
    [
        (np.zeros((0, 4)), None, ValueError, r"`x` must not be empty.*\(0, 4\)"),
        (object(), None, TypeError, "must be a tensor or an array; received object"),
        (None, None, TypeError, "`x` must be a tensor or an array; received NoneType"),
        (np.eye(2), 3, TypeError, "`view` must be a MatrixView; received 3"),
        (keras.Input((3, 4)), None, TypeError, "`x` must have values; received a symb"),
    ],
    ids=["empty", "object", "nothing", "no view", "symbolic"],
)
def test_what_is_no_matrix_is_refused_by_name(x, view, error, message):
    """In our words, not in those of the backend."""
    with pytest.raises(error, match=message):
        orthogonalize(x, view=view)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow traces so"
)
@pytest.mark.parametrize("shape", [None, (None, 4), (2, None, 4), (None,)], ids=str)
def test_matrices_of_unknown_extents_are_refused(shape):
    """What is unknown is named, before any product."""
    import tensorflow as tf

    step = tf.function(orthogonalize)
    with pytest.raises(ValueError, match=r"`x` must have .* known .*x\.set_shape"):
        step.get_concrete_function(tf.TensorSpec(shape, "float32"))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow traces so"
)
def test_a_view_needs_extents():
    """Though a stack of matrices without one does not."""
    import tensorflow as tf

    view = MatrixView.of_last_axes((3, 8, 4))
    step = tf.function(lambda x: orthogonalize(x, view=view))
    with pytest.raises(ValueError, match=r"where a `view` is given.*\(None, 8, 4\)"):
        step.get_concrete_function(tf.TensorSpec((None, 8, 4), "float32"))
