"""Moving averages over several calls of `fit`, `evaluate` and `predict`."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

KEEP = 0.6

# Largest error seen: 8.2e-8. The average and the newest weights differ by 0.01.
TOLERANCE = 1e-5


class Recorder(keras.callbacks.Callback):
    """Keeps the weights after every batch."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_train_batch_end(self, batch, logs=None):
        self.rows.append(flat(self.model))


def flat(model):
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def average(rows):
    """The moving average that starts at the first row."""
    result = np.asarray(rows[0], "float64")
    for row in rows[1:]:
        result = KEEP * result + (1 - KEEP) * row
    return result


@pytest.fixture
def model():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, activation="tanh", use_bias=False),
            keras.layers.Dense(3),
        ]
    )


@pytest.fixture
def data(rng):
    return rng.standard_normal((16, 8)), rng.standard_normal((16, 3))


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "loss_scaled"])
def test_fit_can_be_called_again(wrapped, model, data):
    """Every `fit` ends with the averages as weights, and the next one continues."""
    optimizer = Muon(0.05, use_ema=True, ema_momentum=KEEP)
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0)
    model.compile(optimizer=optimizer, loss="mse")
    recorder = Recorder()
    for _ in range(2):
        model.fit(*data, batch_size=4, shuffle=False, verbose=0, callbacks=[recorder])
        expected = average(recorder.rows)
        np.testing.assert_allclose(flat(model), expected, rtol=0, atol=TOLERANCE)
        assert np.abs(recorder.rows[-1] - expected).max() > 100 * TOLERANCE
        model.evaluate(*data, verbose=0)
        model.predict(data[0], verbose=0)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, id="plain"),
        pytest.param({"gradient_accumulation_steps": 2}, id="accumulating"),
    ],
)
def test_overwriting_at_every_step(arguments, model, data):
    """The weights of every batch are averages already: the end of `fit` adds none."""
    optimizer = Muon(
        0.05, use_ema=True, ema_momentum=KEEP, ema_overwrite_frequency=1, **arguments
    )
    model.compile(optimizer=optimizer, loss="mse")
    recorder = Recorder()
    for _ in range(2):
        model.fit(*data, batch_size=4, shuffle=False, verbose=0, callbacks=[recorder])
        np.testing.assert_array_equal(flat(model), recorder.rows[-1])
    assert np.isfinite(flat(model)).all()


def test_averages_are_evaluated_after_every_epoch(model, data):
    """`SwapEMAWeights` shows the averages to the validation and puts weights back."""
    model.compile(
        optimizer=Muon(0.05, use_ema=True, ema_momentum=KEEP),
        loss="mse",
    )
    recorder = Recorder()
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    history = model.fit(
        *data,
        batch_size=4,
        epochs=2,
        shuffle=False,
        verbose=0,
        validation_data=data,
        callbacks=[recorder, swap],
    )
    expected = average(recorder.rows)
    np.testing.assert_allclose(flat(model), expected, rtol=0, atol=TOLERANCE)
    loss = model.evaluate(*data, verbose=0)
    assert history.history["val_loss"][-1] == pytest.approx(loss, rel=1e-5)
