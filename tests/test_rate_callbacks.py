"""Callbacks that change the learning rate during `fit` change both of Muon's rates."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

RATES = (0.1, 0.1, 0.05, 0.025)
RATIO = 3.0
HALVE_FROM_THE_THIRD_EPOCH = [
    pytest.param(
        lambda: keras.callbacks.LearningRateScheduler(lambda epoch, _: RATES[epoch]),
        id="LearningRateScheduler",
    ),
    pytest.param(
        # No loss falls by 1000, so each epoch after the first one is a plateau.
        lambda: keras.callbacks.ReduceLROnPlateau(
            monitor="loss", factor=0.5, patience=1, min_delta=1000.0
        ),
        id="ReduceLROnPlateau",
    ),
]

# Largest error seen: 2.4e-7. If one of the rates stayed behind, a weight would be
# 0.038 off or more.
TOLERANCE = 1e-5


def fitted(optimizer, callback, **compile_arguments):
    """Return the weights after one epoch per rate."""
    keras.utils.set_random_seed(11)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, activation="tanh", use_bias=False),
            keras.layers.Dense(3),
        ]
    )
    model.compile(optimizer=optimizer, loss="mse", **compile_arguments)
    numbers = np.random.default_rng(5)
    model.fit(
        numbers.standard_normal((8, 8)),
        numbers.standard_normal((8, 3)),
        batch_size=4,
        epochs=len(RATES),
        shuffle=False,
        verbose=0,
        callbacks=[callback],
    )
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def fitted_by_hand(rates, adam_rates):
    """Return the same where both rates are looked up in lists."""
    current = {}

    def set_rates(epoch, logs=None):
        current["muon"], current["adamw"] = rates[epoch], adam_rates[epoch]

    optimizer = Muon(
        learning_rate=lambda: current["muon"],
        adam_learning_rate=lambda: current["adamw"],
    )
    callback = keras.callbacks.LambdaCallback(on_epoch_begin=set_rates)
    return fitted(optimizer, callback, run_eagerly=True)


@pytest.fixture(scope="module")
def by_hand():
    return fitted_by_hand(RATES, [RATIO * rate for rate in RATES])


@pytest.mark.parametrize("make_callback", HALVE_FROM_THE_THIRD_EPOCH)
def test_a_callback_changes_both_rates(make_callback, by_hand):
    """The hidden matrices and AdamW's variables follow, in proportion."""
    optimizer = Muon(RATES[0], adam_learning_rate=RATIO * RATES[0])
    weights = fitted(optimizer, make_callback())
    np.testing.assert_allclose(weights, by_hand, rtol=0, atol=TOLERANCE)


def test_a_rate_that_stays_behind_would_be_seen(by_hand):
    """The comparison can fail: with a constant rate for AdamW, or for Muon."""
    constant = [RATES[0]] * len(RATES)
    muon_alone = fitted_by_hand(RATES, [RATIO * rate for rate in constant])
    adamw_alone = fitted_by_hand(constant, [RATIO * rate for rate in RATES])
    assert np.abs(by_hand - muon_alone).max() > 1000 * TOLERANCE
    assert np.abs(by_hand - adamw_alone).max() > 1000 * TOLERANCE
