"""What torch does otherwise: in place, with identities in factors, without a unit."""

import keras
import numpy as np
import pytest
import torch

from keras_muon import SCHEDULES, Schedule
from keras_muon.newton_schulz import segment
from keras_muon.plan_choice import plan_for
from keras_muon.planning import polar_factor
from keras_muon.torch_ops import TorchOps

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
def test_the_factor_is_the_same(monkeypatch, rng, shape, name, dtype):
    """Nothing that is used again was written into.

    But for the norm: that of the matrix itself has other last bits than that in units
    of its largest entry.
    """
    monkeypatch.setattr(TorchOps, "plain_norm", lambda *_: None)
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


def test_factors_that_hold_their_identity_are_the_same(monkeypatch, rng):
    """In panels; from matrices of any rank. Steps are 0.1 from the polar factor."""
    left, right = tensor_of(rng, (768, 900)), tensor_of(rng, (768, 20))
    plan = plan_of((768, 900), SCHEDULES["auto"], "float32")
    assert plan.panels > 1
    for x in (left, right @ tensor_of(rng, (20, 900))):
        found = polar_factor(x, plan)
        monkeypatch.setattr(TorchOps, "_holds_identity", lambda *_: False)
        apart = polar_factor(x, plan)
        monkeypatch.undo()
        assert not torch.equal(found, apart)
        # 4e-5 of the low rank, where either is 1e-3 from float64.
        assert (found - apart).norm() < 2e-4 * apart.norm()


@pytest.mark.parametrize("holds", [True, False])
def test_steps_of_both_kinds_share_a_gram_matrix(monkeypatch, rng, holds):
    """A cubic step among others has its identity outside of the factor."""
    quintic = SCHEDULES["you"].coefficients[-1]
    x = tensor_of(rng, (768, 1600)) / 200.0
    ops = TorchOps(panels=4)
    if not holds:
        monkeypatch.setattr(TorchOps, "_holds_identity", lambda *_: False)
    for triples in ((CUBIC, quintic, CUBIC), (quintic, CUBIC, quintic)):
        wanted = x.double()
        for a, b, c in triples:
            gram = wanted @ wanted.mT
            wanted = a * wanted + (b * gram + c * gram @ gram) @ wanted
        found = segment(x, triples, "in", ops)
        assert (found - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.parametrize("c", [1e-320, 1e-9, 1e-3, 0.06, 0.07, -0.07, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_small_last_coefficient_takes_no_digits(rng, dtype, c):
    """The square is completed only where what is added and taken away is small."""
    x = tensor_of(rng, (768, 800)).to(dtype) / 60.0
    wanted = x.double()
    gram = wanted @ wanted.mT
    wanted = 1.5 * wanted + (-0.5 * gram + c * gram @ gram) @ wanted
    found = segment(x, [(1.5, -0.5, c)], "in", TorchOps(panels=4))
    error = (found - wanted).norm() / wanted.norm()
    assert error < (2e-6 if dtype == torch.float32 else 1e-14)


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e-13, 1e-6, 1.0, 1e17, 1e19, 1e35])
def test_the_norm_is_taken_without_a_unit_only_in_range(rng, scale):
    """Beyond, squares overflow or vanish; the factor is the same at every scale."""
    x = tensor_of(rng, (40, 64))
    plan = plan_of((40, 64), SCHEDULES["jordan"], "float32")
    ops = TorchOps(overwrites=True)
    with torch.no_grad():
        norm = ops.plain_norm(x * scale)
        assert (norm is not None) is (1e-13 <= scale <= 1e16)
        found = polar_factor(x * scale, plan, overwrites=True)
        wanted = polar_factor(x, plan)
    # Entries below 1e-38 have fewer digits.
    assert (found - wanted).norm() < (1e-5 if scale > 1e-38 else 1e-2) * wanted.norm()


@pytest.mark.parametrize("entry", [0.0, float("inf"), float("nan")])
def test_the_norm_is_plain_only_of_a_matrix_that_has_one(entry):
    """Zero has none to divide by, and infinity none to multiply with."""
    ops = TorchOps(overwrites=True)
    assert ops.plain_norm(torch.ones(3, 4)) is not None
    assert ops.plain_norm(torch.full((3, 4), entry)) is None
    # Where one matrix needed a unit, the last bits of all would change.
    assert ops.plain_norm(torch.ones(2, 3, 4)) is None
