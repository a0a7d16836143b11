"""`model.fit` in every mode that Keras compiles it in ends with the same weights."""

import functools

import keras
import numpy as np
import pytest

from keras_muon import Muon

BATCH = 4
STEPS = 8

# Largest error seen: 4.2e-7 on JAX, 0 on torch, 3.7e-7 on TensorFlow. With fewer steps
# a weight is 0.27 off; the settings change one by 0.02 and more.
TOLERANCE = 1e-5

# Whether Keras compiles at all: by XLA on JAX and TensorFlow, by torch.compile there.
MODES = [
    pytest.param({"jit_compile": True}, id="compiled"),
    pytest.param({"jit_compile": False}, id="uncompiled"),
    pytest.param({"steps_per_execution": 4}, id="four_steps_per_execution"),
    pytest.param({}, id="default"),
]

SETTINGS = [
    pytest.param(
        {"gradient_accumulation_steps": 2, "clipnorm": 0.05, "ns_steps": 2},
        id="accumulating",
    ),
    pytest.param(
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
        id="averaging",
    ),
    pytest.param(
        {
            "learning_rate": keras.optimizers.schedules.CosineDecay(0.05, 3),
            "adam_learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 4),
            "global_clipnorm": 0.1,
            "loss_scale_factor": 64.0,
        },
        id="scheduled",
    ),
]


@pytest.fixture(autouse=True)
def _trace_only(monkeypatch):
    """torch: trace by Dynamo and skip the C++ compiler, which takes a minute."""
    if keras.backend.backend() == "torch":
        import torch

        traced = functools.partial(torch.compile, backend="eager")
        monkeypatch.setattr(torch, "compile", traced)


def fitted(settings=None, steps=STEPS, batched=True, **mode):
    """Return all weights after `steps` batches."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            # Two matrices of one shape, which share a Newton-Schulz iteration.
            keras.layers.Dense(8, activation="tanh", use_bias=False),
            keras.layers.Dense(8, activation="tanh", use_bias=False),
            keras.layers.Dense(3),
        ]
    )
    numbers = np.random.default_rng(5)
    x = numbers.standard_normal((STEPS * BATCH, 8))[: steps * BATCH]
    y = numbers.standard_normal((STEPS * BATCH, 3))[: steps * BATCH]
    settings = {"learning_rate": 0.05, "batched": batched} | (settings or {})
    optimizer = Muon(**settings)
    model.compile(optimizer=optimizer, loss="mse", **mode)
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    assert [route.rule for route in optimizer.routes].count("muon") == 2
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


@pytest.fixture(scope="module")
def eager():
    """The weights of plain Python that takes one matrix after the other."""
    return fitted(batched=False, run_eagerly=True)


@pytest.fixture(scope="module")
def eager_after_two():
    return fitted(steps=2, batched=False, run_eagerly=True)


# Of Dynamo, about the code of Keras.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace:UserWarning")
@pytest.mark.parametrize("mode", MODES)
def test_modes_agree(mode, eager):
    """However Keras runs a step, the weights are those of the plainest run."""
    if keras.backend.backend() == "torch" and "steps_per_execution" in mode:
        with pytest.raises(ValueError, match="must be 1 with the PyTorch backend"):
            fitted(**mode)
        return
    np.testing.assert_allclose(fitted(**mode), eager, rtol=0, atol=TOLERANCE)


def test_missing_steps_would_be_seen(eager, eager_after_two):
    """The comparison above can fail: with fewer steps the weights differ."""
    assert np.abs(eager_after_two - eager).max() > 1000 * TOLERANCE


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_agree_between_modes(settings, eager_after_two):
    """Accumulation, averages, schedules and clips: compiled as in plain Python."""
    compiled = fitted(settings, steps=2)
    by_python = fitted(settings, steps=2, batched=False, run_eagerly=True)
    np.testing.assert_allclose(compiled, by_python, rtol=0, atol=TOLERANCE)
    assert np.abs(by_python - eager_after_two).max() > 1000 * TOLERANCE
