"""Settings are final: another optimizer takes over the state, on every backend."""

import inspect

import keras
import numpy as np
import pytest

from keras_muon import Muon
from keras_muon.settings import FINAL

INPUTS = np.linspace(-1.0, 2.0, 24, dtype="float32").reshape(4, 6)
# Sum of all outputs: the gradient of the kernel is the same at every step.
GRADIENT = np.repeat(INPUTS.sum(axis=0)[:, None], 5, axis=1)
# Sums of four float32 numbers below 10; another momentum moves them by 1 and more.
TOLERANCE = 1e-5


def trained_for_two_steps():
    """Return a model whose kernel's gradient is known, after two steps of `fit`."""
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, use_bias=False, name="only")]
    )
    optimizer = Muon(momentum=0.9, routes={".*only/kernel": "muon"})
    compiled(model, optimizer).fit(*data(), batch_size=4, epochs=2, verbose=0)
    return model


def compiled(model, optimizer):
    model.compile(
        optimizer=optimizer,
        loss=lambda _, outputs: keras.ops.sum(outputs, axis=-1),
    )
    return model


def data():
    """Return a batch over which Keras takes the mean of the loss."""
    return 4 * INPUTS, np.zeros((4, 5), "float32")


def momentum_of(model):
    (momentum,) = model.optimizer.state_of(0)
    return keras.ops.convert_to_numpy(momentum)


def test_all_arguments_are_final_but_the_rate_and_the_name():
    """Those of Muon as its signature has them, and those of Keras' base class."""
    own = inspect.signature(Muon).parameters.keys()
    base = {
        "clipnorm",
        "clipvalue",
        "ema_momentum",
        "ema_overwrite_frequency",
        "global_clipnorm",
        "gradient_accumulation_steps",
        "loss_scale_factor",
        "use_ema",
    }
    rest = {"base_arguments", "learning_rate", "name"}
    assert (own | base | {"scale"}) - rest == FINAL


@pytest.mark.parametrize("name", sorted(FINAL))
def test_a_setting_is_refused_by_name(name):
    """Compiled steps would not see it; the value that was set stays."""
    optimizer = Muon()
    before = str(getattr(optimizer, name, None))
    with pytest.raises(AttributeError, match=rf"`{name}` is decided.*received 0\.5"):
        setattr(optimizer, name, 0.5)
    assert str(getattr(optimizer, name, None)) == before


def test_the_way_out_is_that_of_a_subclass():
    class Mine(Muon):
        pass

    with pytest.raises(AttributeError, match=r"new = Mine\.from_config.*load_own_var"):
        Mine().momentum = 0.5


def test_what_keras_sets_is_free():
    """Rates of callbacks, and a loss scale that Keras moves to its wrapper."""
    optimizer = Muon(loss_scale_factor=2.0)
    optimizer.learning_rate = 0.25
    optimizer.loss_scale_factor = None
    assert optimizer.loss_scale_factor is None
    assert float(optimizer.learning_rate) == 0.25


def test_the_way_out_goes_on_with_another_momentum():
    """As the message says: the state of two steps at 0.9, then one at 0.5."""
    model = trained_for_two_steps()
    np.testing.assert_allclose(momentum_of(model), 1.9 * GRADIENT, atol=TOLERANCE)
    optimizer, state = model.optimizer, {}
    optimizer.save_own_variables(state)
    compiled(model, Muon.from_config(optimizer.get_config() | {"momentum": 0.5}))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.load_own_variables(state)
    model.fit(*data(), batch_size=4, verbose=0)
    assert int(model.optimizer.iterations) == 3
    np.testing.assert_allclose(momentum_of(model), 1.95 * GRADIENT, atol=TOLERANCE)
