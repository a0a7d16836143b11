"""What the graphs are made of, and that equal arguments give equal bytes."""

import hashlib
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import onnx
import pytest

from keras_muon import SCHEDULES, Schedule
from keras_muon.export import (
    adamw_step,
    muon_step,
    newton_schulz,
    rebuild,
    serialized,
    specification_of,
)
from keras_muon.version import __version__

MODELS = {
    "single": lambda **a: newton_schulz((24, 40), **a),
    "stack": lambda **a: newton_schulz((40, 24), batch=3, schedule="cubic", **a),
    "emulated": lambda **a: newton_schulz((8, 4), emulate="bfloat16", **a),
    "double": lambda **a: newton_schulz((8, 4), dtype="float64", steps=3, **a),
    "dynamic": lambda **a: newton_schulz(("m", "n"), batch="k", dynamic=True, **a),
    "own": lambda **a: newton_schulz(
        (8, 4), schedule=Schedule(((1.5, -0.5, 0.0),), 4, "repeat"), **a
    ),
    "muon": lambda **a: muon_step((24, 40), nesterov=False, scaling="mup", **a),
    "muon_stack": lambda **a: muon_step((40, 24), batch="k", momentum=0.95, **a),
    "planned": lambda **a: newton_schulz(
        (384, 400), schedule="auto", method="planned", **a
    ),
    "planned_stack": lambda **a: muon_step((400, 384), batch="k", **a),
    "planned_without_compression": lambda **a: muon_step((128, 512), steps=5, **a),
    "panels": lambda **a: newton_schulz((512, 520), panels=3, **a),
    "planned_panels": lambda **a: newton_schulz(
        (528, 512), schedule="auto", method="planned", panels=2, **a
    ),
    "adamw": lambda **a: adamw_step((3, 5, 7), beta_2=0.999, **a),
    "adamw_scalar": lambda **a: adamw_step((), dtype="float64", **a),
}
ALL_MODELS = pytest.mark.parametrize("name", MODELS)

# All of the standard, in every runtime that was read about. No ReduceL2: it is wrong in
# the fourth digit on large stacks.
ALLOWED = {
    "Abs", "Add", "Cast", "Concat", "Div", "Gemm", "If", "LessOrEqual", "MatMul", "Max",
    "Mul", "Pow", "Reciprocal", "ReduceMax", "ReduceSum", "Reshape", "Round", "Shape",
    "Slice", "Sqrt", "Sub", "Transpose",
}  # fmt: skip


def nodes_of(graph):
    """The nodes of a graph and of its branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes_of(attribute.g)


def operators(model):
    return Counter(node.op_type for node in nodes_of(model.graph))


@ALL_MODELS
@pytest.mark.parametrize("opset", [18, 26])
def test_only_standard_operators_of_the_given_opset(name, opset):
    model = MODELS[name](opset=opset)
    assert set(operators(model)) <= ALLOWED
    assert {node.domain for node in nodes_of(model.graph)} == {""}
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    # ONNX Runtime 1.20 reads IR versions to 10, 1.31 to 13.
    assert model.ir_version == {18: 8, 26: 13}[opset]
    assert not model.functions


def test_single_matrices_take_three_gemm_per_step_and_no_transpose():
    for shape in ((520, 528), (528, 520)):
        model = newton_schulz(shape, schedule="you")
        assert operators(model)["Gemm"] == 15
        assert operators(model).keys() & {"Transpose", "MatMul", "Round"} == set()


def test_split_products_of_small_matrices_take_two_gemm_more():
    """In the first two of five steps; the others take three."""
    for shape in ((24, 40), (40, 24)):
        model = newton_schulz(shape, schedule="you")
        assert operators(model)["Gemm"] == 15 + 2 * 2
        assert operators(model)["Round"] == 2 * 2
        assert operators(model).keys() & {"Transpose", "MatMul"} == set()
        names = [n.name[:6] for n in model.graph.node if n.op_type == "Gemm"]
        assert [names.count(f"step_{step}") for step in range(1, 6)] == [5, 5, 3, 3, 3]


@pytest.mark.parametrize(("schedule", "products"), [("quintic", 3), ("cubic", 2)])
@pytest.mark.parametrize("batch", [None, 4])
def test_a_cubic_step_saves_a_product(schedule, products, batch):
    model = newton_schulz((8, 6), schedule=schedule, steps=4, batch=batch)
    assert operators(model)["Gemm" if batch is None else "MatMul"] == 4 * products


def test_factors_of_float64_are_float64():
    """The attributes of Gemm are float32, so its factors stay 1 here."""
    model = newton_schulz((8, 6), dtype="float64", schedule="polar_express")
    gemms = [n for n in nodes_of(model.graph) if n.op_type == "Gemm"]
    assert {a.name for node in gemms for a in node.attribute} <= {"transA", "transB"}
    stored = {
        float(onnx.numpy_helper.to_array(t).ravel()[0]) for t in model.graph.initializer
    }
    # c times the square is the square and (c - 1) times it, see `_scaled_matmul`.
    triples = SCHEDULES["polar_express"].take()
    assert {x for a, b, c in triples for x in (a, b, c - 1.0)} <= stored


@pytest.mark.parametrize(
    ("shape", "products"), [((24, 40), {24}), ((40, 24), {24}), ((32, 32), {32})]
)
def test_products_are_on_the_short_side(shape, products):
    model = onnx.shape_inference.infer_shapes(newton_schulz(shape))
    extents = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in model.graph.value_info
    }
    grams = [name for name in extents if name.endswith("/gram")]
    assert len(grams) == 5
    assert {extent for name in grams for extent in extents[name]} == products


def test_control_flow_is_one_if_on_the_orientation():
    dynamic = newton_schulz(("m", "n"), dynamic=True)
    assert operators(dynamic)["If"] == 1
    decided = newton_schulz(("m", "n"), dynamic=True, side="in")
    assert operators(decided).keys() & {"If", "Shape"} == set()
    for name in MODELS.keys() - {"dynamic"}:
        assert "If" not in operators(MODELS[name]())


def test_each_branch_multiplies_on_the_side_that_its_condition_found_short():
    """The wrong side gives the same numbers at many times the cost."""
    nodes = {
        node.op_type if node.op_type != "Shape" else node.name: node
        for node in newton_schulz(("m", "n"), dynamic=True).graph.node
    }
    extents = ["orientation/fan_in", "orientation/fan_out"]
    assert list(nodes["LessOrEqual"].input) == extents
    for name, start in zip(extents, (-2, -1), strict=True):
        assert {a.name: a.i for a in nodes[name].attribute}["start"] == start
    branches = {a.name: a.g for a in nodes["If"].attribute}
    for branch, transposed in (("then_branch", "transB"), ("else_branch", "transA")):
        grams = [n for n in branches[branch].node if n.name.endswith("/gram")]
        assert len(grams) == 5
        assert {a.name for gram in grams for a in gram.attribute} == {transposed}


def test_names_say_step_and_role():
    names = [node.name for node in newton_schulz((8, 4), steps=2).graph.node]
    assert names[-6:] == [
        f"step_{n}/{role}" for n in (1, 2) for role in ("gram", "polynomial", "product")
    ]
    assert "normalized/frobenius_norm" in names


@ALL_MODELS
def test_names_are_unique_and_results_have_the_names_of_their_nodes(name):
    model = MODELS[name]()
    nodes = list(nodes_of(model.graph))
    names = [node.name for node in nodes]
    assert len(set(names)) == len(names)
    outputs = {value.name for value in model.graph.output}
    for node in nodes:
        assert set(node.output) <= {node.name} | outputs


@ALL_MODELS
def test_files_are_small_and_say_what_they_are(name):
    model = MODELS[name]()
    assert len(serialized(model)) < 30_000
    assert (model.producer_name, model.producer_version) == ("keras_muon", __version__)
    assert " <- " in model.graph.doc_string


@ALL_MODELS
def test_the_specification_rebuilds_the_same_bytes(name):
    model = MODELS[name]()
    specification = specification_of(onnx.load_model_from_string(serialized(model)))
    assert serialized(rebuild(specification)) == serialized(model)


@ALL_MODELS
def test_the_specification_holds_everything_that_matters(name):
    """Two different models have different specifications."""
    specification = specification_of(MODELS[name]())
    others = [specification_of(MODELS[other]()) for other in MODELS.keys() - {name}]
    assert specification not in others
    assert specification_of(MODELS[name](opset=20)) == specification | {"opset": 20}


def test_whole_numbers_of_numpy_are_plain_in_the_specification():
    model = newton_schulz(np.array([8, 4]).tolist(), steps=np.int64(3))
    from_numpy = newton_schulz((np.int64(8), np.int32(4)), steps=3)
    assert serialized(from_numpy) == serialized(model)


@pytest.mark.parametrize(
    ("build", "shape"), [(newton_schulz, (128, 512)), (muon_step, (384, 400))]
)
def test_specifications_older_than_methods_are_standard(build, shape):
    """Whatever the default of today is."""
    model = build(shape, schedule="you", method="standard")
    older = specification_of(model)
    del older["method"], older["schedule"]["compressed"]
    assert serialized(rebuild(older)) == serialized(model)


def test_models_of_others_have_no_specification():
    with pytest.raises(ValueError, match="was not made by"):
        specification_of(onnx.ModelProto())
    with pytest.raises(ValueError, match="Unknown `kind`: 'muon'"):
        rebuild({"kind": "muon"})


HASHES = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from test_export_graph_structure import MODELS, serialized
for model in MODELS.values():
    print(hashlib.sha256(serialized(model())).hexdigest())
"""


@pytest.mark.parametrize("seed", ["1", "2"])
def test_bytes_do_not_depend_on_the_process(seed):
    """Other processes, with other hash seeds, write the same files."""
    answer = subprocess.run(
        [sys.executable, "-c", HASHES, os.path.dirname(__file__)],
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    here = [
        hashlib.sha256(serialized(model())).hexdigest() for model in MODELS.values()
    ]
    assert answer.stdout.split() == here
