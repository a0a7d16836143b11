"""Real models under `compile` and `fit`: a bare `Muon()` routes and trains them."""

import keras
import numpy as np
import pytest
from real_catalogue import MODELS, build
from real_convnets import CONVNETS

from keras_muon import Muon

pytestmark = [
    # keras-hub's T5 attention ignores the mask of its embedding.
    pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning"),
    # BERT's pooler has no part in masked language modelling.
    pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have gradients:UserWarning"),
    pytest.mark.filterwarnings(
        # Keras on torch, under NumPy 2, in convert_to_numpy.
        "ignore:__array__ implementation doesn't accept a copy keyword"
    ),
]

# Steps on one batch. Deep networks take seconds for each.
STEPS, STEPS_OF_CONVNETS = 12, 3
# One Newton-Schulz step: for up to 28 million parameters, five would be most of the
# time on one core.
ARGUMENTS_OF_CONVNETS = {"learning_rate": 3e-4, "ns_steps": 1}


def fit(name, case, optimizer):
    """The losses of a few steps on one batch."""
    # TensorFlow would trace and compile a deep network for 20 seconds, and runs it
    # eagerly in 1. The other models cover its graphs.
    eagerly = name in CONVNETS and keras.backend.backend() == "tensorflow"
    case.model.compile(optimizer=optimizer, loss=case.loss, run_eagerly=eagerly)
    history = case.model.fit(
        case.inputs,
        case.targets,
        batch_size=len(case.targets),
        epochs=STEPS_OF_CONVNETS if name in CONVNETS else STEPS,
        shuffle=False,
        verbose=0,
    )
    return history.history["loss"]


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", MODELS)
def test_a_bare_muon_routes_and_trains(name):
    """The routes are those of `for_model`, no warning is raised, and the loss falls."""
    case, _ = build(name)
    reference = Muon.for_model(case.model)
    reference.build(case.model.trainable_variables)
    optimizer = Muon(**ARGUMENTS_OF_CONVNETS) if name in CONVNETS else Muon(1e-2)
    losses = fit(name, case, optimizer)
    assert optimizer.routes == reference.routes
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]
