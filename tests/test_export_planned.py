"""Planned graphs: steps that share Gram matrices, and compression, against the SVD."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx_runtimes import RUNTIMES, by_onnxruntime
from rounding_ops import RoundingOps

from keras_muon import SCHEDULES, orthogonalize
from keras_muon.compression import polar_factors
from keras_muon.export import muon_step, newton_schulz, serialized, specification_of
from keras_muon.export.checks import check_list
from keras_muon.export.cost import cost
from keras_muon.export.oracle import expected_outputs
from keras_muon.export.result_checks import relative_error
from keras_muon.plan_choice import SMALLEST_COMPRESSED, plan_for

ALL_RUNTIMES = pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
SHORT, LONG = SMALLEST_COMPRESSED, SMALLEST_COMPRESSED + 16

# Arguments of the graph, and the shape of its input.
LAYOUTS = {
    "wide": ({"shape": (SHORT, LONG)}, (SHORT, LONG)),
    "tall": ({"shape": (LONG, SHORT)}, (LONG, SHORT)),
    "square": ({"shape": (SHORT, SHORT)}, (SHORT, SHORT)),
    "stack": ({"shape": (SHORT, LONG), "batch": 2}, (2, SHORT, LONG)),
    "any_number": ({"shape": (LONG, SHORT), "batch": "k"}, (2, LONG, SHORT)),
}
ALL_LAYOUTS = pytest.mark.parametrize("layout", LAYOUTS)

# Of |result - oracle| / |oracle| in Frobenius norms. Seen: 2.3e-6 and 6e-15.
TOLERANCE = {"float32": 4e-6, "float64": 1e-12}
# Where steps share a Gram matrix, its rounding is amplified by up to the square of
# their slope. Seen: 1.1e-5.
TOLERANCE_OF_SHARED = 3e-5


def planned(**arguments):
    return newton_schulz(**{"schedule": "auto", "method": "planned"} | arguments)


def error_of(runtime, model, x):
    (expected,) = expected_outputs(specification_of(model), {"update": x})
    result = runtime(model, x)
    assert result.dtype == x.dtype
    return relative_error(result, expected)


@ALL_RUNTIMES
@ALL_LAYOUTS
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_compression_equals_the_oracle(rng, runtime, layout, dtype):
    arguments, shape = LAYOUTS[layout]
    model = planned(dtype=dtype, **arguments)
    x = rng.standard_normal(shape).astype(dtype)
    assert error_of(runtime, model, x) <= TOLERANCE[dtype]


@pytest.mark.parametrize("opset", [18, 26])
@ALL_LAYOUTS
def test_both_ends_of_the_opsets_run(rng, layout, opset):
    arguments, shape = LAYOUTS[layout]
    x = rng.standard_normal(shape).astype("float32")
    model = planned(opset=opset, **arguments)
    assert error_of(by_onnxruntime, model, x) <= TOLERANCE["float32"]


@ALL_RUNTIMES
@pytest.mark.parametrize("shape", [(384, 1536), (1536, 384), (128, 512)], ids=str)
def test_steps_that_share_a_gram_matrix(rng, runtime, shape):
    model = planned(shape=shape)
    grams = [node for node in model.graph.node if node.name.endswith("/gram")]
    steps = len(SCHEDULES["auto"].coefficients)
    assert len(grams) < steps or min(shape) >= SMALLEST_COMPRESSED
    x = rng.standard_normal(shape).astype("float32")
    assert error_of(runtime, model, x) <= TOLERANCE_OF_SHARED


def updates(rng, shape):
    """What the oracle meets beside noise: a steep spectrum, few directions, zeros."""
    u, _, vt = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    size = min(shape)
    yield "steep", (u * np.geomspace(1.0, 1e-3, size)) @ vt
    yield "outliers", (u * np.where(np.arange(size) < 20, 50.0, 1.0)) @ vt
    yield "tiny", 1e-30 * rng.standard_normal(shape)
    yield "zero", np.zeros(shape)


@ALL_RUNTIMES
def test_other_spectra_and_scales_equal_the_oracle(rng, runtime):
    """In float64, where rounding hides no mistake in the formulas."""
    model = planned(shape=(SHORT, LONG), dtype="float64")
    for name, x in updates(rng, (SHORT, LONG)):
        if name == "zero":
            np.testing.assert_array_equal(runtime(model, x), x)
        else:
            assert error_of(runtime, model, x) <= 1e-10, name


@ALL_LAYOUTS
def test_the_graph_does_what_keras_does(rng, layout):
    """The two share a plan, and differ by rounding."""
    arguments, shape = LAYOUTS[layout]
    x = rng.standard_normal(shape).astype("float32")
    expected = orthogonalize(x, schedule="auto", compute_dtype="float32")
    result = by_onnxruntime(planned(**arguments), x)
    assert relative_error(result, np.asarray(expected)) <= TOLERANCE["float32"]


# How far the emulation is from NumPy with ml_dtypes. The standard's evaluator sums in
# NumPy's order and gives the same bits here; ONNX Runtime has another (1.1e-2 seen).
EMULATED = {"reference": 1e-3, "onnxruntime": 2e-2}


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("layout", ["wide", "tall", "any_number"])
def test_emulated_bfloat16(rng, name, layout):
    """Both are 1.5e-2 from float64; without rounding the graph would be 1e-6 from it.

    Every rounding has its place: one too few or too many is 1e-2 for the evaluator.
    """
    runtime = RUNTIMES[name]
    arguments, shape = LAYOUTS[layout]
    x = rng.standard_normal(shape).astype("float32")
    model = planned(emulate="bfloat16", **arguments)
    result = runtime(model, x)
    rounded = result.astype(ml_dtypes.bfloat16).astype("float32")
    np.testing.assert_array_equal(result, rounded)
    plan = plan_for(*shape[-2:], SCHEDULES["auto"], "bfloat16")
    carrier = RoundingOps(ml_dtypes.bfloat16, "bfloat16")
    expected = polar_factors(x, plan, carrier)
    assert relative_error(result, np.asarray(expected)) <= EMULATED[name]
    assert 2e-3 < error_of(runtime, model, x) < 5e-2


@ALL_RUNTIMES
def test_a_whole_step(rng, runtime):
    """The default of `muon_step` compresses as the default of `Muon` does."""
    model = muon_step((SHORT, LONG), batch="k")
    assert "compresses 72 leading singular values" in model.graph.doc_string
    names = [value.name for value in model.graph.input]
    inputs = {n: rng.standard_normal((2, SHORT, LONG)) for n in names[:3]}
    inputs |= {name: np.asarray(0.1) for name in names[3:]}
    inputs = {name: array.astype("float32") for name, array in inputs.items()}
    expected = expected_outputs(specification_of(model), inputs)
    for result, wanted in zip(runtime(model, *inputs.values()), expected, strict=True):
        assert relative_error(result, wanted) <= TOLERANCE["float32"]


def test_steps_by_number_are_not_compressed():
    """As in `keras_muon.Muon`."""
    model = planned(shape=(SHORT, LONG), steps=5)
    assert "compresses" not in model.graph.doc_string
    assert specification_of(model)["steps"] == 5
    assert specification_of(planned(shape=(SHORT, LONG)))["steps"] is None


def test_a_plan_saves_operations():
    """Counted from the graph: the plan's products, and one or two per entry beside."""
    for shape in ((768, 768), (768, 3072)):
        model = planned(shape=shape)
        plan = plan_for(*shape, SCHEDULES["auto"], "float32")
        assert plan.flops < cost(model).flops < 1.02 * plan.flops
        standard = newton_schulz(shape, schedule="auto")
        assert cost(model).flops < 0.85 * cost(standard).flops


def change_sign(model):
    (tensor,) = [t for t in model.graph.initializer if t.name.endswith("/signs")]
    signs = onnx.numpy_helper.to_array(tensor).copy()
    signs[0, 0, 0] *= -1
    tensor.CopyFrom(onnx.numpy_helper.from_array(signs, tensor.name))


def forget_to_subtract(model):
    node = next(n for n in model.graph.node if n.name == "compressed/combined")
    node.op_type = "Sub"


@pytest.mark.parametrize("change", [change_sign, forget_to_subtract])
def test_altered_compression_is_found(change):
    """By the specification, and by the results of both runtimes."""
    model = planned(shape=(SHORT, LONG))
    assert all(row.passed for row in check_list(serialized(model)))
    change(model)
    rows = {row.name: row for row in check_list(serialized(model))}
    for name in ("specification", "reference evaluator", "ONNX Runtime"):
        assert rows[name].passed is False
