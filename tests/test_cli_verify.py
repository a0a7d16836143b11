"""keras-muon verify tells files apart, and says what is the matter with each."""

import json

import numpy as np
import onnx
import pytest
from cli_runs import answered, exported, exported_step, refused

from keras_muon.export import adamw_step, newton_schulz, serialized
from keras_muon.export.cli import main
from keras_muon.export.reading import UnreadableFileError, Verdict, parsed


def verdict_on(capsys, path, code=1):
    """(verdict, reason, rows by name) of a file."""
    answer = answered(capsys, "verify", path, code=code)
    return answer["verdict"], answer["reason"], {r["name"]: r for r in answer["checks"]}


def altered(tmp_path, change, build=lambda: newton_schulz((8, 4))):
    """The path of a file whose model was changed."""
    model = build()
    change(model)
    path = tmp_path / "altered.onnx"
    path.write_bytes(serialized(model))
    return path


GOOD = {
    "single": lambda: newton_schulz((8, 4)),
    "open": lambda: newton_schulz(("m", "n"), batch="k", dynamic=True),
    "emulated": lambda: newton_schulz((4, 8), batch=2, emulate="float16"),
    "slow": lambda: newton_schulz((48, 48), schedule="cubic", steps=30),
    "adamw": lambda: adamw_step((7,), dtype="float64"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_good(capsys, tmp_path, name):
    path = tmp_path / "good.onnx"
    path.write_bytes(serialized(GOOD[name]()))
    verdict, reason, rows = verdict_on(capsys, path, code=0)
    assert (verdict, reason) == ("good", "All checks passed.")
    assert {row["result"] for row in rows.values()} == {"ok"}
    assert main(["verify", str(path)]) == 0
    assert "good. All checks passed" in capsys.readouterr().out


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
    (one,) = [t for t in model.graph.initializer if t.name == "float32/1.0"]
    one.CopyFrom(onnx.numpy_helper.from_array(np.float32(0.5), one.name))


def change_specification(key, value):
    def change(model):
        (entry,) = model.metadata_props
        entry.value = json.dumps(json.loads(entry.value) | {key: value}, sort_keys=True)

    return change


def set_specification(text):
    def change(model):
        model.metadata_props[0].value = text

    return change


def add_metadata(model):
    model.metadata_props.add(key="author", value="me")


def clear_metadata(model):
    del model.metadata_props[:]


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
        "graph.node[step_2/gram].input[0] is 'update', should be 'step_1/product'",
    ),
    "order": (reorder, "graph.node has another order"),
    "constant": (change_constant, "graph.initializer[float32/1.0].raw_data is"),
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
    "steps": (change_specification("steps", 4), "graph.node[step_5/gram] should not"),
    "dtype": (change_specification("dtype", "float16"), "Unknown `dtype`: 'float16'"),
    "kind": (change_specification("kind", "newton"), "Unknown `kind`: 'newton'"),
    "argument": (change_specification("speed", 9), "unexpected keyword argument"),
    "no_json": (set_specification("{"), "Expecting property name"),
    "list": (set_specification("[1]"), "dictionary update sequence"),
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
        (one,) = [t for t in model.graph.initializer if t.name == "float32/1.0"]
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


def test_wrong_results_of_an_unaltered_file_have_a_word_of_their_own(
    monkeypatch, capsys, tmp_path
):
    """As on a runtime that computes wrongly."""
    from keras_muon.export import result_checks

    name, compute = result_checks.RUNTIMES["onnxruntime"]

    def wrong(model, inputs):
        return [1.01 * result for result in compute(model, inputs)]

    monkeypatch.setitem(result_checks.RUNTIMES, "onnxruntime", (name, wrong))
    verdict, reason, _ = verdict_on(capsys, exported(tmp_path))
    assert verdict == "wrong results"
    assert "ONNX Runtime" in reason


def test_graphs_of_other_versions_are_compared_without_their_version(capsys, tmp_path):
    def older(model):
        model.producer_version = "0.0.1"

    verdict, _, rows = verdict_on(capsys, altered(tmp_path, older), code=0)
    assert verdict == "good"
    assert "made by version 0.0.1" in rows["specification"]["detail"]


def test_files_without_specification(capsys, tmp_path):
    verdict, reason, _ = verdict_on(capsys, altered(tmp_path, clear_metadata))
    assert verdict == "altered"
    assert "though keras_muon made it" in reason

    def other(model):
        clear_metadata(model)
        model.producer_name = "pytorch"

    verdict, reason, _ = verdict_on(capsys, altered(tmp_path, other))
    assert verdict == "not of keras_muon"
    assert "pytorch made it" in reason
    assert main(["verify", str(tmp_path / "altered.onnx")]) == 1
    assert "not of keras_muon. Its metadata has no" in capsys.readouterr().out


NOT_ONNX = {
    "empty": b"",
    "text": b"Dear diary, today I exported a model.",
    "line": b"\nBased on nothing",
    "zip": b"PK\x03\x04\x14\x00\x00\x00\x08\x00",
    "png": b"\x89PNG\r\n\x1a\n",
    "npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}",
    "json": b'{"kind": "newton_schulz"}',
    "wire": b"\x08\x08\xff\xff",
}


@pytest.mark.parametrize("name", NOT_ONNX)
def test_files_that_are_no_onnx(capsys, tmp_path, name):
    path = tmp_path / "file.onnx"
    path.write_bytes(NOT_ONNX[name])
    verdict, reason, rows = verdict_on(capsys, path)
    assert verdict == "no ONNX"
    assert "is empty" in reason or "is no ONNX model" in reason
    assert rows == {}


def test_every_truncation_is_noticed(tmp_path):
    """At every byte but those where whole fields are left, metadata missing."""
    content = serialized(newton_schulz((8, 4), steps=1))
    readings = [read_or_error(content[:length]) for length in range(1, len(content))]
    errors = [r for r in readings if isinstance(r, UnreadableFileError)]
    assert {error.verdict for error in errors} == {Verdict.TRUNCATED}
    assert all("is the beginning of an ONNX file" in str(error) for error in errors)
    (rest,) = [r for r in readings if not isinstance(r, UnreadableFileError)]
    assert rest.graph.node
    assert not rest.metadata_props


def read_or_error(content):
    try:
        return parsed(content, "file")
    except UnreadableFileError as error:
        return error


def test_a_truncated_file_says_how_much_is_missing(capsys, tmp_path):
    path = exported(tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    verdict, reason, _ = verdict_on(capsys, path)
    assert verdict == "truncated"
    assert "has 500 bytes and announces at least" in reason


def test_a_missing_file_is_bad_input(capsys, tmp_path):
    assert "There is no file" in refused(capsys, "verify", tmp_path / "none.onnx")
    assert "There is no file" in refused(capsys, "verify", tmp_path)
