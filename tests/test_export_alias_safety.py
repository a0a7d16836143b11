"""The structural check: our graphs pass, optimized too, and unsafe ones do not."""

import numpy as np
import onnx
import onnxruntime
import pytest

from keras_muon.export import adamw_step, check_alias_safety, muon_step, serialized
from keras_muon.export.step_ports import ADAMW_STATE, MUON_STATE

GRAPHS = {
    "wide": (lambda: muon_step((24, 40)), MUON_STATE),
    "tall": (lambda: muon_step((40, 24), nesterov=False), MUON_STATE),
    "stack": (lambda: muon_step((40, 24), batch=3), MUON_STATE),
    "any_number": (lambda: muon_step((24, 40), batch="k"), MUON_STATE),
    "double": (lambda: muon_step((24, 40), dtype="float64"), MUON_STATE),
    "emulated": (lambda: muon_step((24, 40), emulate="bfloat16"), MUON_STATE),
    "adamw": (lambda: adamw_step((24, 40)), ADAMW_STATE),
    "adamw_scalar": (lambda: adamw_step(()), ADAMW_STATE),
}
ALL_GRAPHS = pytest.mark.parametrize("name", GRAPHS)


def optimized(model, path):
    """The graph that ONNX Runtime executes."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    # Level 2, the highest whose graph is the same on every processor.
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    )
    onnxruntime.InferenceSession(
        serialized(model), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(path)


@ALL_GRAPHS
def test_our_graphs_are_safe(name, tmp_path):
    """As they are written, and as ONNX Runtime rewrites them."""
    build, state = GRAPHS[name]
    model = build()
    check_alias_safety(model, state)
    check_alias_safety(optimized(model, tmp_path / "optimized.onnx"), state)


def with_late_read(model, reads):
    """The same graph, but what its last node subtracts also holds a state input."""
    mutated = onnx.ModelProto()
    mutated.CopyFrom(model)
    *nodes, last = mutated.graph.node
    assert last.output[0] == "new_parameter"
    late = onnx.helper.make_node("Add", [last.input[1], reads], ["late"], "late")
    last.input[1] = "late"
    del mutated.graph.node[:]
    mutated.graph.node.extend([*nodes, late, last])
    onnx.checker.check_model(mutated)
    return mutated


@ALL_GRAPHS
def test_a_late_read_is_found(name):
    """Old momentum, read for the parameter after new momentum is written."""
    build, state = GRAPHS[name]
    mutated = with_late_read(build(), "momentum")
    message = "'new_momentum' may not share a buffer with input 'momentum': 'late'"
    with pytest.raises(ValueError, match=message):
        check_alias_safety(mutated, state)


def test_the_hazard_is_real(rng):
    """In place, the mutated graph returns other numbers than with fresh buffers."""
    mutated = with_late_read(muon_step((8, 12)), "momentum")
    session = onnxruntime.InferenceSession(
        serialized(mutated), providers=["CPUExecutionProvider"]
    )
    tensors = ("parameter", "gradient", "momentum")
    arrays = {n: rng.standard_normal((8, 12)).astype("float32") for n in tensors}
    arrays |= {n: np.ones((), "float32") for n in ("learning_rate", "weight_decay")}
    right, _ = session.run(None, arrays)
    hold = onnxruntime.OrtValue.ortvalue_from_numpy
    held = {name: hold(array.copy()) for name, array in arrays.items()}
    binding = session.io_binding()
    for name, value in held.items():
        binding.bind_ortvalue_input(name, value)
    for output, name in MUON_STATE.items():
        binding.bind_ortvalue_output(output, held[name])
    session.run_with_iobinding(binding)
    assert np.abs(held["parameter"].numpy() - right).max() > 0.1


def parsed(body):
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]>'
        f"g (float[2,2] old, bool c) => (float[2,2] new) {{ {body} }}"
    )


@pytest.mark.parametrize(
    "body",
    [
        "new = Mul(old, old)",
        "x = Neg(old)  new = Add(old, x)",
        "x = MatMul(old, old)  y = Exp(x)  new = Sub(y, x)",
    ],
)
def test_reads_before_the_write_are_safe(body):
    check_alias_safety(parsed(body), {"new": "old"})


@pytest.mark.parametrize(
    ("body", "reader"),
    [
        ("new = MatMul(old, old)", "new"),
        ("new = Softmax(old)", "new"),
        ("x = Neg(old)  y = Exp(old)  new = Abs(x)", "y"),
        ("new = Abs(old)  y = Add(new, old)", "y"),
        (
            "x = Neg(old)  y = If(c) <then_branch = t () => (float[2,2] p)"
            "{ p = Exp(old) }, else_branch = e () => (float[2,2] q) { q = Abs(x) }>"
            "  new = Abs(x)",
            "y",
        ),
    ],
)
def test_other_reads_are_unsafe(body, reader):
    """A product needs its input whole; a branch reads what its graph has around it."""
    with pytest.raises(ValueError, match=f": '{reader}' reads the input"):
        check_alias_safety(parsed(body), {"new": "old"})
