"""keras-muon verify tells files apart, and says what each is."""

import os

import numpy as np
import onnx
import pytest
from cli_runs import altered, exported, exported_step, refused, verdict_on

from keras_muon.export import adamw_step, newton_schulz, result_checks, serialized
from keras_muon.export.checks import check_list
from keras_muon.export.cli import main
from keras_muon.export.finish import SPECIFICATION_KEY, seal
from keras_muon.export.reading import UnreadableFileError, Verdict, parsed

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


def clear_metadata(model):
    del model.metadata_props[:]


def test_wrong_results_of_an_unaltered_file_have_a_word_of_their_own(
    monkeypatch, capsys, tmp_path
):
    """As on a runtime that computes wrongly."""
    name, compute = result_checks.RUNTIMES["onnxruntime"]

    def wrong(model, inputs):
        return [1.01 * result for result in compute(model, inputs)]

    monkeypatch.setitem(result_checks.RUNTIMES, "onnxruntime", (name, wrong))
    verdict, reason, _ = verdict_on(capsys, exported(tmp_path))
    assert verdict == "wrong results"
    assert "ONNX Runtime" in reason


def test_no_number_in_a_later_output_is_seen(monkeypatch, capsys, tmp_path):
    """Python's max() would take the first error for the largest."""
    name, compute = result_checks.RUNTIMES["onnxruntime"]

    def wrong(model, inputs):
        parameter, momentum = compute(model, inputs)
        return [parameter, np.nan * momentum]

    monkeypatch.setitem(result_checks.RUNTIMES, "onnxruntime", (name, wrong))
    verdict, _, rows = verdict_on(capsys, exported_step(tmp_path))
    assert verdict == "wrong results"
    assert rows["ONNX Runtime"]["error"] == "nan"


def test_graphs_of_other_versions_are_compared_without_their_version(capsys, tmp_path):
    def older(model):
        model.producer_version = "0.0.1"
        seal(model)

    verdict, _, rows = verdict_on(capsys, altered(tmp_path, older), code=0)
    assert verdict == "good"
    assert "made by version 0.0.1" in rows["specification"]["detail"]


def test_alterations_of_other_versions_are_told_without_the_version(capsys, tmp_path):
    def altered_older(model):
        model.producer_version = "0.0.1"
        seal(model)
        model.doc_string = "mine"

    _, _, rows = verdict_on(capsys, altered(tmp_path, altered_older))
    assert rows["specification"]["detail"] == "doc_string should not be there"


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
    # As a field of a model, these letters announce 97 bytes.
    "letters": b"Based on nothing",
    "zip": b"PK\x03\x04\x14\x00\x00\x00\x08\x00",
    "png": b"\x89PNG\r\n\x1a\n",
    "npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}",
    "json": b'{"kind": "newton_schulz"}',
    "wire": b"\x08\x08\xff\xff",
    # A field that no model has, then a version.
    "later": b"\xf8\x01\x01\x08\x08",
    # It begins as a model that has nothing but a version, and goes on as none does.
    "tensor": onnx.numpy_helper.from_array(np.zeros((3, 4))).SerializeToString(),
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
    """At every byte but those where whole fields are left, metadata missing.

    Without any, and with the specification but no digest: `verify` calls both altered.
    """
    content = serialized(newton_schulz((8, 4), steps=1))
    readings = [read_or_error(content[:length]) for length in range(1, len(content))]
    errors = [r for r in readings if isinstance(r, UnreadableFileError)]
    assert {error.verdict for error in errors} == {Verdict.TRUNCATED}
    assert all("is the beginning of an ONNX file" in str(error) for error in errors)
    whole = [r for r in readings if not isinstance(r, UnreadableFileError)]
    assert all(rest.graph.node for rest in whole)
    keys = [[entry.key for entry in rest.metadata_props] for rest in whole]
    assert keys == [[], [SPECIFICATION_KEY]]


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


def test_a_device_is_no_regular_file(capsys):
    assert "is no regular file" in refused(capsys, "verify", os.devnull)


def test_a_missing_file_is_bad_input(capsys, tmp_path):
    assert "There is no file" in refused(capsys, "verify", tmp_path / "none.onnx")
    assert "is a folder" in refused(capsys, "verify", tmp_path)


@pytest.mark.parametrize("shape", [(1, 5), (300, 1)], ids=str)
def test_single_rows_and_columns_pass(shape):
    """Their one singular value is where the first step of Polar Express cancels."""
    model = newton_schulz(shape, schedule="polar_express")
    assert all(row.passed for row in check_list(serialized(model)))
    first = next(n for n in model.graph.node if n.name == "step_1/polynomial")
    (beta,) = [a for a in first.attribute if a.name == "beta"]
    beta.f *= 1.001
    rows = {row.name: row for row in check_list(serialized(model))}
    assert rows["ONNX Runtime"].passed is False
