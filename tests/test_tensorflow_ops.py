"""TensorFlow's own operations compute what the verbs of every backend do."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_muon.keras_ops import KerasOps
from keras_muon.planning import carrier
from keras_muon.tensorflow_ops import TensorflowOps

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="operations of TensorFlow"
)


def test_tensorflow_has_them():
    """The plan makes no difference."""
    assert type(carrier(None)) is TensorflowOps


@pytest.mark.parametrize("stack", [(), (3,)])
@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_step_is_applied_as_elsewhere(rng, stack, side, dtype):
    """The sum with the diagonal is rounded once in both, so nothing differs.

    On float32, where the diagonal is no part of a factor, neither.
    """
    x = ops.cast(rng.normal(size=(*stack, 8, 12)), dtype)
    extent = 8 if side == "in" else 12
    total = ops.cast(rng.normal(size=(*stack, extent, extent)), dtype)
    found, wanted = (
        ops.convert_to_numpy(ops.cast(verbs.applied(3.4, total, x, side), "float32"))
        for verbs in (TensorflowOps(), KerasOps())
    )
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("stack", [(), (3,)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_entry_may_have_either_sign(rng, stack, sign):
    """And both axes are kept."""
    x = rng.normal(size=(*stack, 5, 7)).astype("float32")
    x[..., 2, 3] = 9.0 * sign
    largest = ops.convert_to_numpy(TensorflowOps().largest_entry(ops.array(x)))
    np.testing.assert_array_equal(largest, np.full((*stack, 1, 1), 9.0))
