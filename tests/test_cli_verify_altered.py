"""keras-muon verify on altered files: that they are, where, and what it does."""

import json

import numpy as np
import onnx
import pytest
from cli_runs import altered, exported_step, verdict_on
from google.protobuf.message import DecodeError

from keras_muon.export import newton_schulz, serialized
from keras_muon.export.examination import examine
from keras_muon.export.finish import DIGEST_KEY, SPECIFICATION_KEY
from keras_muon.export.reading import Verdict


def node(model, name):
    (found,) = [n for n in model.graph.node if n.name == name]
    return found


def change_coefficient(model):
    (alpha,) = [a for a in node(model, "step_2/polynomial").attribute if a.f > 0]
    alpha.f = 2.1


def remove_node(model):
    model.graph.node.remove(node(model, "step_2/polynomial"))


def add_node(model):
    model.graph.node.add(
        op_type="Abs", input=["update"], output=["extra"], name="extra"
    )


def swap_inputs(model):
    node(model, "step_2/gram").input[0] = "update"


def reorder(model):
    first = model.graph.node[0]
    model.graph.node.insert(2, first)
    del model.graph.node[0]


def change_constant(model):
    (one,) = [t for t in model.graph.initializer if t.name == "float32/0.5"]
    one.CopyFrom(onnx.numpy_helper.from_array(np.float32(0.25), one.name))


def specification(model):
    (entry,) = [e for e in model.metadata_props if e.key == SPECIFICATION_KEY]
    return entry


def change_specification(key, value):
    def change(model):
        entry = specification(model)
        entry.value = json.dumps(json.loads(entry.value) | {key: value}, sort_keys=True)

    return change


def set_specification(text):
    def change(model):
        specification(model).value = text

    return change


def change_digest(model):
    (entry,) = [e for e in model.metadata_props if e.key == DIGEST_KEY]
    entry.value = "no"


def change_source(model):
    """A letter that no node depends on."""
    entry = specification(model)
    assert "Jordan et al." in entry.value
    entry.value = entry.value.replace("Jordan et al.", "Jordan et bl.")


def add_metadata(model):
    model.metadata_props.add(key="author", value="me")


# What was changed, and what the row about the specification says.
ALTERED = {
    "coefficient": (
        change_coefficient,
        "graph.node[step_2/polynomial].attribute[alpha].f is 2.1, should be 2.0315",
    ),
    "removed": (remove_node, "graph.node[step_2/polynomial] is missing"),
    "added": (add_node, "graph.node[extra] should not be there"),
    "input": (
        swap_inputs,
        "graph.node[step_2/gram].input[0] is 'update', should be 'step_1/multiplied'",
    ),
    "order": (reorder, "graph.node has another order"),
    "constant": (change_constant, "graph.initializer[float32/0.5].raw_data is"),
    "opset": (
        lambda model: setattr(model.opset_import[0], "version", 19),
        "opset_import[0].version is '19', should be '18'",
    ),
    "formula": (
        lambda model: setattr(model.graph, "doc_string", "mine"),
        "graph.doc_string is 'mine', should be",
    ),
    "producer": (
        lambda model: setattr(model, "producer_name", "me"),
        "producer_name is 'me', should be 'keras_muon'",
    ),
    "metadata": (add_metadata, "metadata_props[author] should not be there"),
    "steps": (
        change_specification("steps", 4),
        "graph.node[step_2/product].input[0] is 'step_2/combined'",
    ),
    "dtype": (change_specification("dtype", "float16"), "Unknown `dtype`: 'float16'"),
    "kind": (change_specification("kind", "newton"), "Unknown `kind`: 'newton'"),
    "argument": (change_specification("speed", 9), "unexpected keyword argument"),
    "panels": (
        change_specification("panels", 5),
        "`panels` must be at most 4; received 5",
    ),
    "no_json": (set_specification("{"), "is no specification: '{'"),
    "list": (set_specification("[1]"), "is no specification: '[1]'"),
    "no_kind": (set_specification('{"kind": NaN}'), "is no specification"),
    "deep": (set_specification("[" * 100_000), "is no specification"),
    "no_shape": (set_specification('{"kind": "newton_schulz"}'), "missing 1 required"),
    "no_shapes": (change_specification("shape", 3), "`shape` must be"),
    "digest": (
        change_digest,
        "metadata_props[keras_muon.sha256].value is 'no', should be",
    ),
    "source": (change_source, "metadata_props[keras_muon.sha256].value is"),
    "version": (
        lambda model: setattr(model, "producer_version", "9.9.9"),
        "producer_version is '9.9.9', should be",
    ),
    "endless": (change_specification("steps", 10**9), "`steps` must be at most 1000"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_altered_files_are_altered_and_it_says_where(capsys, tmp_path, name):
    change, detail = ALTERED[name]
    path = altered(tmp_path, change)
    verdict, reason, rows = verdict_on(capsys, path)
    assert verdict == "altered"
    assert reason == "The file is not what its specification gives."
    assert rows["specification"]["result"] == "failed"
    assert detail in rows["specification"]["detail"]


def test_results_of_altered_files_are_compared_too(capsys, tmp_path):
    """A wrong coefficient shows in the results, a changed comment does not."""
    _, _, rows = verdict_on(capsys, altered(tmp_path, change_coefficient))
    assert rows["standard"]["result"] == "ok"
    assert rows["ONNX Runtime"]["result"] == "failed"
    assert rows["ONNX Runtime"]["error"] > 1e-3
    _, _, rows = verdict_on(capsys, altered(tmp_path, add_metadata))
    assert rows["ONNX Runtime"]["result"] == "ok"
    _, _, rows = verdict_on(capsys, altered(tmp_path, remove_node))
    for name in ("standard", "reference evaluator", "ONNX Runtime"):
        assert rows[name]["result"] == "failed"
        assert "step_2/polynomial" in rows[name]["detail"]


def test_no_number_is_no_result(capsys, tmp_path):
    """NaN compares false with every bound; JSON has no word for it."""

    def poison(model):
        (one,) = [t for t in model.graph.initializer if t.name == "float32/0.5"]
        nan = np.float32("nan")
        one.CopyFrom(onnx.numpy_helper.from_array(nan, one.name))

    _, _, rows = verdict_on(capsys, altered(tmp_path, poison))
    assert rows["ONNX Runtime"]["result"] == "failed"
    assert rows["ONNX Runtime"]["error"] == "nan"


def test_an_unsafe_order_is_found_in_a_step(capsys, tmp_path):
    def read_late(model):
        model.graph.node.add(
            op_type="Exp", input=["momentum"], output=["late"], name="late"
        )

    path = exported_step(tmp_path)
    assert verdict_on(capsys, path, code=0)[0] == "good"
    model = onnx.load(path)
    read_late(model)
    path.write_bytes(serialized(model))
    _, _, rows = verdict_on(capsys, path)
    assert "'late' reads the input" in rows["state in place"]["detail"]


def test_a_file_that_no_parser_reads_is_altered_too(capsys, tmp_path):
    """A wrong length within the graph; the fields around it are still a model's."""
    content = bytearray(serialized(newton_schulz((8, 12))))
    content[content.index(b"normalized") - 1] ^= 0x40
    with pytest.raises(DecodeError):
        onnx.load_model_from_string(bytes(content))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    verdict, reason, _ = verdict_on(capsys, path)
    assert verdict == "altered"
    assert "a part of it cannot be read" in reason


@pytest.mark.parametrize("more", [b"x", b"\0\0"], ids=repr)
def test_what_follows_a_model_is_found(capsys, tmp_path, more):
    """As where a download was appended to another; it tells where the model ends."""
    content = serialized(newton_schulz((8, 12)))
    path = tmp_path / "longer.onnx"
    path.write_bytes(content + more)
    verdict, reason, _ = verdict_on(capsys, path)
    assert verdict == "altered"
    ends = f"up to its byte {len(content):,}, and ends with {len(more)} others"
    assert ends in reason


def test_the_beginning_of_one_more_field_is_a_truncation(capsys, tmp_path):
    path = tmp_path / "longer.onnx"
    path.write_bytes(serialized(newton_schulz((8, 12))) + b"\x08")
    verdict, reason, _ = verdict_on(capsys, path)
    assert verdict == "truncated"
    assert "announces at least 1 more" in reason


def test_no_byte_changes_unseen(tmp_path):
    """A bit of every 17th byte turned: never good, and never more than a verdict."""
    content = serialized(newton_schulz((8, 12)))
    path = tmp_path / "turned.onnx"
    seen = set()
    for place in range(0, len(content), 17):
        turned = bytearray(content)
        turned[place] ^= 1 << place % 8
        path.write_bytes(turned)
        seen.add(examine(path, "none").verdict)
    assert Verdict.ALTERED in seen
    assert Verdict.GOOD not in seen
    path.write_bytes(content)
    assert examine(path, "none").verdict is Verdict.GOOD
