"""Clipping by Keras happens before Muon sees a gradient: same as clipping by hand."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

SHAPES = {"first": (6, 4), "second": (6, 4), "gain": (5,)}
ROUTES = {"first": "muon", "second": "muon", "gain": "adamw"}

# Largest error seen: 2.4e-7 (jax 1.2e-7, torch 2.4e-7, tensorflow 1.2e-7). The clip
# that acts least moves a weight by 0.084, and the two closest clips differ by 0.024.
TOLERANCE = 1e-5


@pytest.fixture
def gradients(rng):
    """Four steps of very different size: Muon forgets a scale that never changes."""
    scales = (1.0, 30.0, 0.1, 8.0)
    return [[s * rng.standard_normal(n) for n in SHAPES.values()] for s in scales]


def trained(gradients, **arguments):
    """Return the variables after one step per list of gradients."""
    start = np.random.default_rng(0)
    variables = [
        keras.Variable(start.standard_normal(shape), name=name, dtype="float32")
        for name, shape in SHAPES.items()
    ]
    optimizer = Muon(0.1, routes=ROUTES, **arguments)
    for step in gradients:
        optimizer.apply([keras.ops.cast(g, "float32") for g in step], variables)
    return np.concatenate([keras.ops.convert_to_numpy(v).ravel() for v in variables])


def clip_each_norm(step, largest):
    return [g * min(1.0, largest / np.linalg.norm(g)) for g in step]


def clip_entries(step, largest):
    return [np.clip(g, -largest, largest) for g in step]


def clip_joint_norm(step, largest):
    norm = np.linalg.norm(np.concatenate([g.ravel() for g in step]))
    return [g * min(1.0, largest / norm) for g in step]


CLIPS = [
    pytest.param("clipnorm", clip_each_norm, id="clipnorm"),
    pytest.param("clipvalue", clip_entries, id="clipvalue"),
    pytest.param("global_clipnorm", clip_joint_norm, id="global_clipnorm"),
]


@pytest.mark.parametrize(("argument", "clip"), CLIPS)
@pytest.mark.parametrize("largest", [0.5, 3.0], ids=["tight", "loose"])
def test_clipping_is_clipping_by_hand(argument, clip, largest, gradients):
    """An argument of Keras and clipped gradients lead to the same weights."""
    by_keras = trained(gradients, **{argument: largest})
    by_hand = trained([clip(step, largest) for step in gradients])
    np.testing.assert_allclose(by_keras, by_hand, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("argument", "clip"), CLIPS)
@pytest.mark.parametrize("largest", [0.5, 3.0], ids=["tight", "loose"])
def test_clipping_matters_here(argument, clip, largest, gradients):
    """The comparison above can fail: without clipping the weights are elsewhere."""
    clipped = trained(gradients, **{argument: largest})
    assert np.abs(clipped - trained(gradients)).max() > 1000 * TOLERANCE


def test_the_three_clips_differ(gradients):
    """No two of the clips lead to the same weights, so none stands in for another."""
    results = [trained(gradients, **{clip.id: 3.0}) for clip in CLIPS]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(results[one] - results[other]).max() > 1000 * TOLERANCE
