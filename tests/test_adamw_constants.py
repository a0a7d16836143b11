"""Constants of AdamW that its state cannot tell from 0 or 1 are refused in time."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

NEARLY_ONE = 1 - 1e-8
VANISHING = [
    {"adam_beta_1": NEARLY_ONE},
    {"adam_beta_2": NEARLY_ONE},
    {"adam_epsilon": 1e-60},
]
vanishing = pytest.mark.parametrize("constant", VANISHING, ids=str)


def variable(dtype):
    return keras.Variable(np.ones(3), dtype=dtype, name="gain")


@vanishing
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_they_are_refused_when_the_state_is_created(constant, dtype):
    """A decay of 1 divides by zero: weights were infinite after one step."""
    (name,) = constant
    optimizer = Muon(**constant)
    with pytest.raises(ValueError, match=rf"`{name}` .* in float32"):
        optimizer.build([variable(dtype)])
    assert not optimizer.built


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no float64 here")
@vanishing
def test_float64_tells_them_apart(constant):
    gain = variable("float64")
    optimizer = Muon(1e-2, **constant)
    optimizer.build([gain])
    optimizer.apply([keras.ops.ones((3,), "float64")])
    values = keras.ops.convert_to_numpy(gain)
    assert np.isfinite(values).all()
    assert (values != 1.0).all()


@vanishing
def test_a_model_without_such_variables_may_have_any(constant):
    kernel = keras.Variable(np.ones((3, 4)), name="kernel")
    optimizer = Muon(routes={"kernel": "muon"}, **constant)
    optimizer.build([kernel])
    assert optimizer.built
