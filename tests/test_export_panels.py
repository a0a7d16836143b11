"""Symmetric products in panels: the same results from fewer operations."""

import functools
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx_runtimes import RUNTIMES, by_onnxruntime
from oracle import polar_by_svd

from keras_muon import SCHEDULES
from keras_muon.export import newton_schulz, rebuild, serialized, specification_of
from keras_muon.export.arguments import MOST_PANELS, SMALLEST_PANELLED
from keras_muon.export.checks import check_list
from keras_muon.export.cost import cost
from keras_muon.export.iteration import Iteration
from keras_muon.export.oracle import expected_outputs
from keras_muon.export.result_checks import relative_error

ALL_RUNTIMES = pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
ALL_PANELS = pytest.mark.parametrize("panels", range(1, MOST_PANELS + 1))
SMALL = SMALLEST_PANELLED

# As for whole products, in entries; largest seen 6.6e-7 and 1.3e-15.
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}
# Of the Frobenius norm where leading values are compressed, and where steps share a
# Gram matrix, which amplifies rounding: as for whole products. Seen: 1.8e-6 and 1.3e-5.
PLANNED_TOLERANCE = 4e-6
TOLERANCE_OF_SHARED = 3e-5


@functools.cache
def update_of(shape):
    return np.random.default_rng(7).standard_normal(shape).astype("float32")


@functools.cache
def polar_of(shape):
    return polar_by_svd(update_of(shape), SCHEDULES["jordan"].take())


@functools.cache
def expected_of(shape, schedule, method, dtype):
    """What the package's own oracle says, which knows of compression."""
    model = newton_schulz(shape, schedule=schedule, method=method, dtype=dtype)
    specification = specification_of(model)
    return expected_outputs(specification, {"update": update_of(shape)})[0]


def assert_polar(runtime, shape, **arguments):
    result = runtime(newton_schulz(shape, **arguments), update_of(shape))
    tolerance = TOLERANCE["float32"]
    np.testing.assert_allclose(result, polar_of(shape), rtol=0, atol=tolerance)


@ALL_RUNTIMES
@pytest.mark.parametrize("panels", [2, 4])
@pytest.mark.parametrize("shape", [(768, 768), (771, 800), (800, 768)], ids=str)
def test_panels_equal_the_oracle(runtime, shape, panels):
    """Square, wide with an extent that no number of panels divides, and tall."""
    assert_polar(runtime, shape, panels=panels)


@pytest.mark.parametrize("opset", [18, 26])
@ALL_PANELS
def test_both_ends_of_the_opsets_run(opset, panels):
    assert_polar(by_onnxruntime, (SMALL + 1, SMALL + 5), panels=panels, opset=opset)


@ALL_RUNTIMES
@pytest.mark.parametrize(("shape", "side"), [((40, 515), "out"), ((515, 40), "in")])
def test_the_long_side_is_panelled_if_asked_for(runtime, shape, side):
    model = newton_schulz(shape, side=side, panels=3)
    assert "step_1/gram/panel_3" in [node.name for node in model.graph.node]
    assert_polar(runtime, shape, side=side, panels=3)


@ALL_RUNTIMES
@pytest.mark.parametrize("panels", [2, 3])
@pytest.mark.parametrize("shape", [(512, 520), (528, 512), (512, 1536), (520, 513)])
def test_plans_are_computed_in_panels(runtime, shape, panels):
    """With compression, with steps that share a Gram matrix, and with neither."""
    model = newton_schulz(shape, schedule="auto", method="planned", panels=panels)
    expected = expected_of(shape, "auto", "planned", "float32")
    shared = max(shape) > 2 * min(shape)
    tolerance = TOLERANCE_OF_SHARED if shared else PLANNED_TOLERANCE
    result = runtime(model, update_of(shape))
    assert relative_error(result, expected) <= tolerance


@ALL_RUNTIMES
@pytest.mark.parametrize("schedule", ["polar_express", "cubic", "auto"])
def test_double_precision(runtime, schedule):
    shape, method = (SMALL, SMALL + 8), "planned" if schedule == "auto" else "standard"
    model = newton_schulz(
        shape, schedule=schedule, method=method, dtype="float64", panels=3
    )
    result = runtime(model, update_of(shape).astype("float64"))
    expected = expected_of(shape, schedule, method, "float64")
    tolerance = TOLERANCE["float64"]
    np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)


@ALL_RUNTIMES
def test_emulation_rounds_whole_products(runtime):
    """Once each; the order of sums may change the rounding of a few entries."""
    shape = (SMALL, SMALL + 8)
    whole, half = (
        newton_schulz(shape, emulate="bfloat16", steps=1, panels=panels)
        for panels in (1, 2)
    )
    casts = [Counter(n.op_type for n in m.graph.node)["Cast"] for m in (whole, half)]
    assert casts[0] == casts[1] > 0
    result, expected = (runtime(model, update_of(shape)) for model in (half, whole))
    assert np.mean(result != expected) <= 0.05
    assert np.abs(result - expected).max() <= 2 * 2**-8


@ALL_PANELS
def test_a_step_has_a_gemm_per_panel(panels):
    model = newton_schulz((SMALL + 8, SMALL + 16), panels=panels)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["Gemm"] == 5 * (2 * panels + 1)
    # Each block below the diagonal is the transpose of one above.
    assert operators["Transpose"] == 5 * 2 * panels * (panels - 1) // 2
    assert (operators["Concat"] == 0) == (panels == 1)


def extents_by_name(model):
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in inferred.graph.value_info
    }


def test_panels_begin_at_the_diagonal():
    extents = extents_by_name(newton_schulz((800, 771), panels=3, steps=2))
    for product in ("step_1/gram", "step_1/polynomial", "step_2/gram"):
        panels = [extents[f"{product}/panel_{number}"] for number in (1, 2, 3)]
        assert panels == [(257, 771), (257, 514), (257, 257)]
        assert extents[product] == (771, 771)


@pytest.mark.parametrize("method", ["standard", "planned"])
def test_small_products_are_whole(method):
    """Below the smallest extent, and inside compression at every extent."""
    below = (SMALL - 1, SMALL + 8)
    nodes, panelled = (
        newton_schulz(below, method=method, panels=panels).graph.node
        for panels in (1, 2)
    )
    assert list(nodes) == list(panelled)
    model = newton_schulz((8208, 8208), schedule="auto", method="planned", panels=2)
    extents = extents_by_name(model)
    grams = {n.name: n.op_type for n in model.graph.node if n.name.endswith("/gram")}
    sizes = {name: extents[name][0] for name in grams}
    assert set(sizes.values()) == {513, 8208}
    assert {sizes[name] for name in grams if grams[name] == "Concat"} == {8208}
    assert {sizes[name] for name in grams if grams[name] == "Gemm"} == {513}


@pytest.mark.parametrize("shape", [(768, 768), (768, 3072)], ids=str)
@pytest.mark.parametrize("panels", [2, 4])
def test_the_plan_counts_panels(shape, panels):
    """As the graph does, which has one or two operations per entry beside."""
    model = newton_schulz(shape, schedule="auto", method="planned", panels=panels)
    plan = Iteration.of(specification_of(model)).plan
    assert plan.flops < cost(model).flops < 1.02 * plan.flops
    whole = newton_schulz(shape, schedule="auto", method="planned")
    assert cost(model).flops < {2: 0.86, 4: 0.8}[panels] * cost(whole).flops


def test_the_specification_tells_panels():
    model = newton_schulz((SMALL, SMALL), panels=2)
    assert specification_of(model)["panels"] == 2
    assert serialized(rebuild(specification_of(model))) == serialized(model)
    whole = newton_schulz((SMALL, SMALL))
    assert "panels" not in specification_of(whole)
    assert serialized(newton_schulz((SMALL, SMALL), panels=1)) == serialized(whole)
    assert "below the diagonal is mirrored" in model.graph.doc_string
    assert "mirrored" not in whole.graph.doc_string


def forget_to_turn(model):
    name = "step_3/gram/panel_2/mirrored_1"
    (node,) = [n for n in model.graph.node if n.name == name]
    node.op_type = "Identity"
    del node.attribute[:]


def exchange_blocks(model):
    (node,) = [n for n in model.graph.node if n.name == "step_3/gram/rows_2"]
    node.input[:] = node.input[::-1]


@pytest.mark.parametrize("change", [forget_to_turn, exchange_blocks])
def test_wrong_mirrors_are_found(change):
    """By the specification, and by the results of both runtimes."""
    model = newton_schulz((SMALL, SMALL + 8), panels=2)
    assert all(row.passed for row in check_list(serialized(model)))
    change(model)
    rows = {row.name: row for row in check_list(serialized(model))}
    for name in ("specification", "reference evaluator", "ONNX Runtime"):
        assert rows[name].passed is False
