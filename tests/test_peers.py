"""Trajectories equal those of two published optimizers where their rules coincide."""

import keras
import numpy as np
import pytest
import torch

from keras_muon import Muon

STEPS = 6
RATE = 0.05

# Largest error seen on any backend, against either peer: 9.6e-7. The smallest effect
# that must be noticed, torch's cast to bfloat16, moves an entry of every kernel by
# 1.3e-3 or more.
TOLERANCE = 1e-5

SHAPES = {"wide": (8, 20), "tall": (20, 8), "square": (12, 12)}


@pytest.fixture
def weights(rng):
    return {n: rng.normal(size=shape).astype("float32") for n, shape in SHAPES.items()}


@pytest.fixture
def gradients(rng):
    return {
        name: rng.normal(size=(STEPS, *shape)).astype("float32")
        for name, shape in SHAPES.items()
    }


@pytest.fixture
def _float32(monkeypatch):
    """Torch's Muon without its cast; the copy that the cast implies stays."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


def keras_run(optimizer, weights, gradients):
    """The weights after all steps of a Keras optimizer."""
    variables = [keras.Variable(w, name=name) for name, w in weights.items()]
    optimizer.build(variables)
    for step in range(STEPS):
        now = [keras.ops.convert_to_tensor(gradients[v.name][step]) for v in variables]
        optimizer.apply(now)
    return {v.name: keras.ops.convert_to_numpy(v.value) for v in variables}


def torch_run(weights, gradients, **settings):
    """The same with torch.optim.Muon, whose kernels are (out, in)."""
    parameters = {
        name: torch.nn.Parameter(torch.tensor(weight.T, device="cpu"))
        for name, weight in weights.items()
    }
    optimizer = torch.optim.Muon(parameters.values(), lr=RATE, **settings)
    for step in range(STEPS):
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradients[name][step].T, device="cpu")
        optimizer.step()
    return {name: p.detach().numpy().T for name, p in parameters.items()}


def distances(actual, wanted):
    return [np.abs(actual[name] - wanted[name]).max() for name in wanted]


ALL = {".*": "muon"}
SCALINGS = {"original": "original", "moonlight": "match_rms_adamw"}


@pytest.mark.usefixtures("_float32")
@pytest.mark.parametrize("nesterov", [True, False], ids=["nesterov", "heavy_ball"])
@pytest.mark.parametrize(("ours", "theirs"), SCALINGS.items(), ids=SCALINGS.values())
def test_torch_muon_takes_the_same_steps(weights, gradients, ours, theirs, nesterov):
    """Its moving average is our momentum times 1 - mu, which the norm divides away."""
    same = {"momentum": 0.95, "weight_decay": 0.1, "nesterov": nesterov}
    muon = Muon(RATE, schedule="jordan", scaling=ours, routes=ALL, **same)
    actual = keras_run(muon, weights, gradients)
    wanted = torch_run(weights, gradients, adjust_lr_fn=theirs, **same)
    assert max(distances(actual, wanted)) < TOLERANCE


CHANGES = {
    "scaling": {"adjust_lr_fn": "match_rms_adamw"},
    "momentum": {"momentum": 0.9},
    "nesterov": {"nesterov": False},
    "decay": {"weight_decay": 0.09},
    "steps": {"ns_steps": 4},
}


@pytest.mark.usefixtures("_float32")
def test_the_comparison_with_torch_notices_each_change(weights, gradients):
    """One other setting, and every kernel is far off."""
    same = {"momentum": 0.95, "weight_decay": 0.1, "nesterov": True}
    muon = Muon(RATE, schedule="jordan", scaling="original", routes=ALL, **same)
    actual = keras_run(muon, weights, gradients)
    for name, change in CHANGES.items():
        other = torch_run(weights, gradients, **same | change)
        assert min(distances(actual, other)) > 100 * TOLERANCE, name


def test_the_cast_that_is_removed_would_be_noticed(weights, gradients):
    """In bfloat16, as published, torch's Muon stays near, but outside the tolerance."""
    same = {"momentum": 0.95, "weight_decay": 0.1}
    muon = Muon(RATE, schedule="jordan", scaling="original", routes=ALL, **same)
    actual = keras_run(muon, weights, gradients)
    wrong = distances(actual, torch_run(weights, gradients, **same))
    assert 50 * TOLERANCE < min(wrong) <= max(wrong) < 1000 * TOLERANCE


@pytest.mark.parametrize("nesterov", [True, False], ids=["nesterov", "heavy_ball"])
@pytest.mark.parametrize("rms", [0.2, 0.5, None], ids="rms_rate={}".format)
def test_keras_muon_takes_the_same_steps(weights, gradients, rms, nesterov):
    """Kernels of two axes, in which Keras' own Muon sees the same matrices."""
    same = {"momentum": 0.9, "weight_decay": 0.1, "nesterov": nesterov}
    ours = {"scaling": "moonlight", "rms": rms} if rms else {"scaling": "naive"}
    muon = Muon(RATE, schedule="jordan", routes=ALL, **ours, **same)
    peer = keras.optimizers.Muon(RATE, rms_rate=rms, **same)
    actual = keras_run(muon, weights, gradients)
    assert max(distances(actual, keras_run(peer, weights, gradients))) < TOLERANCE


def test_keras_muon_updates_the_rest_alike(weights, gradients):
    """AdamW beside Muon, with betas and a decay of its own; and each is noticed."""
    same = {"momentum": 0.95, "weight_decay": 0.1}
    adamw = {"adam_beta_1": 0.8, "adam_beta_2": 0.99, "adam_weight_decay": 0.2}
    routes = {"wide": "muon", "tall|square": "adamw"}
    muon = Muon(RATE, schedule="jordan", routes=routes, **same, **adamw)
    actual = keras_run(muon, weights, gradients)
    for change in (
        {},
        {"adam_beta_1": 0.9},
        {"adam_beta_2": 0.95},
        {"adam_weight_decay": 0.1},
        {"adam_lr_ratio": 0.9},
    ):
        theirs = same | adamw | {"exclude_layers": ["tall", "square"]} | change
        peer = keras.optimizers.Muon(RATE, **theirs)
        wide, *others = distances(actual, keras_run(peer, weights, gradients))
        assert wide < TOLERANCE
        if change:
            assert min(others) > 50 * TOLERANCE, change
        else:
            assert max(others) < TOLERANCE


def test_keras_muon_at_a_ratio_of_rates(weights, gradients):
    """`adam_lr_ratio` is our `adam_learning_rate` over `learning_rate`, decay aside."""
    muon = Muon(
        RATE,
        schedule="jordan",
        momentum=0.95,
        adam_learning_rate=0.3 * RATE,
        adam_beta_2=0.999,
        adam_weight_decay=None,
        routes={"wide": "muon", "tall|square": "adamw"},
    )
    peer = keras.optimizers.Muon(
        RATE,
        adam_lr_ratio=0.3,
        adam_weight_decay=None,
        exclude_layers=["tall", "square"],
    )
    actual = keras_run(muon, weights, gradients)
    assert max(distances(actual, keras_run(peer, weights, gradients))) < TOLERANCE
