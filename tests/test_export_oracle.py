"""The library's own oracle against the tests' oracle, which shares no line with it."""

import numpy as np
import pytest
from oracle import polar_by_svd
from trajectory_oracle import adamw_run, muon_run

from keras_muon import SCHEDULES
from keras_muon.export import (
    adamw_step,
    muon_step,
    newton_schulz,
    specification_of,
)
from keras_muon.export.oracle import expected_outputs
from keras_muon.export.probes import probes
from keras_muon.export.result_checks import relative_error

RATE, DECAY = 0.5, 0.3


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("shape", [(12, 20), (3, 20, 12)], ids=str)
def test_polar_factors(rng, name, shape):
    specification = specification_of(
        newton_schulz(
            shape[-2:], schedule=name, batch=shape[0] if len(shape) == 3 else None
        )
    )
    update = rng.standard_normal(shape)
    (result,) = expected_outputs(specification, {"update": update})
    expected = polar_by_svd(update, SCHEDULES[name].take())
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("scaling", ["naive", "original", "mup", "moonlight"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", [(12, 20), (20, 12)], ids=str)
def test_muon_steps(rng, shape, nesterov, scaling):
    """Two steps with state carried, against a closed sum over both gradients."""
    settings = {"momentum": 0.8, "nesterov": nesterov, "scaling": scaling, "rms": 0.1}
    specification = specification_of(muon_step(shape, **settings))
    weight, *gradients = rng.standard_normal((3, *shape))
    new, momentum = weight, np.zeros(shape)
    for gradient in gradients:
        new, momentum = expected_outputs(
            specification,
            {
                "parameter": new,
                "gradient": gradient,
                "momentum": momentum,
                "learning_rate": np.asarray(RATE),
                "weight_decay": np.asarray(DECAY),
            },
        )
    axes = ((), (0,), (1,))
    rates = [RATE, RATE]
    expected = muon_run(weight, gradients, axes, rates=rates, decay=DECAY, **settings)
    np.testing.assert_allclose(new, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("epsilon", [1e-7, 0.1])
def test_adamw_steps(rng, epsilon):
    settings = {"beta_1": 0.8, "beta_2": 0.9, "epsilon": epsilon}
    specification = specification_of(adamw_step((7,), **settings))
    weight, *gradients = rng.standard_normal((4, 7))
    new, momentum, velocity = weight, np.zeros(7), np.zeros(7)
    for number, gradient in enumerate(gradients, 1):
        new, momentum, velocity = expected_outputs(
            specification,
            {
                "parameter": new,
                "gradient": gradient,
                "momentum": momentum,
                "velocity": velocity,
                "learning_rate": np.asarray(RATE),
                "weight_decay": np.asarray(DECAY),
                "step": np.asarray(number),
            },
        )
    expected = adamw_run(weight, gradients, rates=[RATE] * 3, decay=DECAY, **settings)
    np.testing.assert_allclose(new, expected, rtol=0, atol=1e-14)


MODELS = {
    "fixed": (lambda: newton_schulz((8, 4), batch=2), [(2, 8, 4)]),
    "open": (
        lambda: newton_schulz(("m", "n"), batch="k", dynamic=True),
        [(3, 24, 40), (3, 40, 24)],
    ),
    "half": (lambda: newton_schulz((6, "n"), dynamic=True), [(6, 3), (6, 12)]),
    "single": (lambda: newton_schulz((1, "n"), dynamic=True), [(1, 1), (1, 2)]),
    "square": (lambda: newton_schulz(("m", "m"), dynamic=True), [(24, 24)]),
}


@pytest.mark.parametrize("name", MODELS)
def test_probes_meet_both_orientations(name):
    build, shapes = MODELS[name]
    model = build()
    first, again = (probes(model, specification_of(model)) for _ in range(2))
    assert [inputs["update"].shape for inputs in first] == shapes
    for inputs, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(inputs["update"], same["update"])


def test_probes_of_steps_move_the_weights_visibly():
    """So that a step that is 1 % too long is far above the bound of 1e-5."""
    for scaling in ("naive", "moonlight"):
        model = muon_step((256, 1024), scaling=scaling)
        specification = specification_of(model)
        (inputs,) = probes(model, specification)
        expected, _ = expected_outputs(specification, inputs)
        longer = inputs | {"learning_rate": 1.01 * inputs["learning_rate"]}
        wrong, _ = expected_outputs(specification, longer)
        assert relative_error(wrong, expected) > 1e-3


def test_relative_errors():
    ones = np.ones((2, 2))
    assert relative_error(1.5 * ones, ones) == 0.5
    assert relative_error(ones[:1], ones) == np.inf
    assert np.isnan(relative_error(np.nan * ones, ones))
