"""Writing where it is allowed changes no bit, and never happens elsewhere."""

import keras
import numpy as np
import pytest
import torch

from keras_muon import SCHEDULES, Schedule
from keras_muon.plan_choice import plan_for
from keras_muon.planning import polar_factor

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only torch writes in place"
)

CUBIC = (1.5, -0.5, 0.0)
SCHEDULES_TESTED = {
    "auto": SCHEDULES["auto"],
    "jordan": SCHEDULES["jordan"],
    "cubic after compression": Schedule(
        SCHEDULES["you"].coefficients, compressed=(CUBIC, CUBIC)
    ),
}
SHAPES = [(384, 400), (400, 384), (384, 1600), (768, 784), (40, 64), (3, 40, 64)]


def tensor_of(rng, shape):
    return torch.from_numpy(rng.standard_normal(shape).astype("float32"))


def plan_of(shape, schedule, dtype):
    return plan_for(*shape[-2:], schedule, dtype, panelled=len(shape) == 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SCHEDULES_TESTED)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_factor_is_the_same(rng, shape, name, dtype):
    """Nothing that is used again was written into."""
    x = tensor_of(rng, shape)
    plan = plan_of(shape, SCHEDULES_TESTED[name], dtype)
    with torch.no_grad():
        wanted = polar_factor(x, plan)
        found = polar_factor(x.clone(), plan, overwrites=True)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_matrix_is_only_written_into_if_it_may_be(rng, shape):
    """What users orthogonalize stays as it was."""
    x = tensor_of(rng, shape)
    before = x.clone()
    plan = plan_of(shape, SCHEDULES["auto"], "float32")
    with torch.no_grad():
        polar_factor(x, plan)
        assert torch.equal(x, before)
        polar_factor(x, plan, overwrites=True)
        assert not torch.equal(x, before)


def test_recorded_matrices_are_never_written_into(rng):
    """Their gradient needs them."""
    x = tensor_of(rng, (384, 400)).requires_grad_()
    before = x.detach().clone()
    plan = plan_of((384, 400), SCHEDULES["auto"], "float32")
    polar_factor(x, plan, overwrites=True).sum().backward()
    assert torch.equal(x.detach(), before)
    assert np.isfinite(x.grad.numpy()).all()
