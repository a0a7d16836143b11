"""Symmetric products in panels: the same product, and symmetric to the last bit."""

import keras
import numpy as np
import pytest
import torch

from keras_muon import SCHEDULES, orthogonalize, planning
from keras_muon.panels import torch_panels
from keras_muon.products import panel_edges

# Largest error seen 4.3e-7 of entries up to 30; a panel that is left out is off by 10.
TOLERANCE = 1e-5


@pytest.mark.parametrize("extent", [1, 3, 4, 7, 16])
@pytest.mark.parametrize("panels", [1, 2, 4])
def test_panels_cover_every_column_once(extent, panels):
    """Also where the extent is no multiple of their number."""
    edges = panel_edges(extent, panels)
    assert [c for edge in edges for c in range(*edge)] == list(range(extent))
    assert len(edges) <= panels


@pytest.mark.parametrize("panels", [1, 2, 3, 4])
@pytest.mark.parametrize("extent", [5, 12])
def test_the_product_is_the_whole_product(rng, panels, extent):
    """For X X^T and for commuting symmetric matrices."""
    x = torch.tensor(rng.normal(size=(extent, 9)), dtype=torch.float32)
    gram = x @ x.T
    for left, right in ((x, x.T), (gram, gram)):
        expected = left.double() @ right.double()
        difference = torch_panels(left, right, panels) - expected
        assert difference.abs().max() / expected.abs().max() < TOLERANCE


@pytest.mark.parametrize("fused", [False, True], ids=["product", "fused"])
def test_torch_writes_panels_in_place(rng, fused):
    """alpha * C + beta * A @ B, each panel where it belongs, mirrored exactly."""
    x = torch.tensor(rng.normal(size=(10, 6)), dtype=torch.float32)
    gram = x @ x.T
    extra = (0.5, gram, -2.0) if fused else ()
    result = torch_panels(gram, gram, 4, *extra)
    expected = gram.double() @ gram.double()
    expected = 0.5 * gram.double() - 2.0 * expected if fused else expected
    assert (result - expected).abs().max() / expected.abs().max() < TOLERANCE
    edges = panel_edges(10, 4)
    for start, end in edges:
        assert torch.equal(result[start:end, end:], result[end:, start:end].T)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("extent", [8, 10])
def test_a_product_of_two_matrices_is_symmetric_too(rng, extent, fused):
    """To the last bit, though rounding in bfloat16 keeps factors from commuting.

    The mean of both halves on the diagonal, the lower one elsewhere.
    """
    x = torch.tensor(rng.normal(size=(extent, 6)))
    gram = (x @ x.T).bfloat16()
    other = (gram @ gram).bfloat16()
    extra = (0.5, gram) if fused else ()
    result = torch_panels(other, gram, 4, *extra, beta=2.0, commuting=True)
    assert torch.equal(result, result.T)
    whole = 2.0 * (other.double() @ gram.double()) + 0.5 * fused * gram.double()
    assert not torch.equal(whole, whole.T)
    # bfloat16 rounds to 4e-3, factors and result.
    assert (result - whole).abs().max() / whole.abs().max() < 0.02


def test_torch_gradients_flow_through_whole_products(rng):
    """Writing in place would break autograd, so there the product is whole."""
    x = torch.tensor(rng.normal(size=(8, 6)), requires_grad=True)
    torch_panels(x, x.T, 4).sum().backward()
    expected = 2 * x.detach().sum(0).expand(8, 6)
    torch.testing.assert_close(x.grad, expected)


def test_large_matrices_take_the_panels(rng, monkeypatch):
    """From 768 rows on torch's plan for a CPU has panels; the result is the same."""
    plans = []
    real = planning.carrier

    def spy(plan, *rest, **choices):
        plans.append(plan)
        return real(plan, *rest, **choices)

    monkeypatch.setattr(planning, "carrier", spy)
    # A rank of 3 makes the exact result cheap: only three singular values are not 0.
    u, v = (np.linalg.qr(rng.normal(size=(n, 3)))[0] for n in (768, 800))
    values = np.array([1.0, 0.5, 0.1])
    result = orthogonalize(((u * values) @ v.T).astype("float32"), "you")
    normal = values / np.linalg.norm(values)
    for a, b, c in SCHEDULES["you"].take():
        normal = a * normal + b * normal**3 + c * normal**5
    error = np.abs(keras.ops.convert_to_numpy(result) - (u * normal) @ v.T).max()
    # Seen 1e-6 on each backend; one triple left out is off by 5e-3.
    assert error < 1e-5
    on_torch = keras.backend.backend() == "torch"
    if not planning.runs_on_accelerator():
        assert plans[0].panels == (4 if on_torch else 1)
