"""keras-muon run: arrays in, arrays out, and what is refused."""

import os

import numpy as np
import onnx
import pytest
from cli_runs import altered, exported, exported_step, refused
from oracle import polar_by_svd

from keras_muon import SCHEDULES
from keras_muon.export.cli import main
from keras_muon.export.finish import seal


@pytest.fixture
def x(rng):
    return rng.standard_normal((8, 4)).astype("float32")


def saved(path, array):
    np.save(path, array)
    return str(path)


def test_a_graph_runs_on_files(tmp_path, x):
    path, out = exported(tmp_path), tmp_path / "out.npy"
    update = saved(tmp_path / "x.npy", x)
    words = ["run", str(path), update, "--device", "cpu", "--threads", "1"]
    assert main([*words, "--out", str(out)]) == 0
    result = np.load(out)
    expected = polar_by_svd(x, SCHEDULES["jordan"].take())
    # Largest error seen 7e-7.
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)
    assert sorted(os.listdir(tmp_path)) == ["out.npy", "polar.onnx", "x.npy"]


def test_a_step_takes_numbers_for_scalars_and_writes_all_outputs(tmp_path, x):
    path = str(exported_step(tmp_path))
    weight, zero = saved(tmp_path / "w.npy", x), saved(tmp_path / "zero.npy", 0 * x)
    outs = [str(tmp_path / "w1.npy"), str(tmp_path / "m1.npy")]
    arrays = [weight, zero, zero, "0.5", "0.25"]
    assert main(["run", path, *arrays, "--out", *outs]) == 0
    # A zero gradient leaves only the decay.
    np.testing.assert_array_equal(np.load(outs[0]), x * np.float32(0.875))
    assert not np.load(outs[1]).any()


@pytest.mark.parametrize("number", ["-1", "-1e-3", "-1.5e0", "-.5E+1", "-2.", "-inf"])
def test_negative_numbers_are_no_options(tmp_path, number):
    path, out = tmp_path / "same.onnx", tmp_path / "out.npy"
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]>
        g (float x) => (float y) { y = Identity(x) }"""
    )
    path.write_bytes(model.SerializeToString())
    assert main(["run", str(path), number, "--out", str(out)]) == 0
    assert np.load(out) == np.float32(number)


def test_other_words_with_a_dash_are_options(capsys, tmp_path):
    path, out = exported(tmp_path), tmp_path / "out.npy"
    for word in ("-", "-e3", "-1e", "-1,2", "-info", "-x.npy", "-1.npy"):
        line = refused(capsys, "run", path, word, "--out", out)
        message = "There is no file" if word == "-" else "unrecognized arguments"
        assert message in line
    line = refused(capsys, "run", path, "--threads", "-1e3", "--out", out)
    assert "--threads: invalid int value: '-1e3'" in line


def test_a_changed_graph_runs_with_a_warning(capsys, tmp_path, x):
    """A good one runs without a word."""
    update = saved(tmp_path / "x.npy", x)

    def warned_of(path):
        out = str(tmp_path / f"{path.stem}.npy")
        assert main(["run", str(path), update, "--out", out]) == 0
        return capsys.readouterr().err

    assert warned_of(exported(tmp_path)) == ""
    path = altered(tmp_path, lambda model: setattr(model, "doc_string", "mine"))
    assert f"{str(path)!r} was changed since it was exported" in warned_of(path)


def test_outputs_are_replaced_only_by_force(capsys, tmp_path, x):
    path, out = exported(tmp_path), tmp_path / "out.npy"
    update = saved(tmp_path / "x.npy", x)
    out.write_text("old")
    words = ["run", path, update, "--out", out]
    assert "exists" in refused(capsys, *words)
    assert out.read_text() == "old"
    assert main([*map(str, words), "--force"]) == 0
    assert np.load(out).shape == (8, 4)


def inputs(folder, x):
    """Files to run on, by name."""
    np.savez(folder / "several.npz", x=x)
    np.save(folder / "objects.npy", np.array([{}], object))
    (folder / "text.npy").write_text("1, 2, 3")
    (folder / "empty.npy").write_bytes(b"")
    return {
        "good": saved(folder / "x.npy", x),
        "turned": saved(folder / "turned.npy", x.T),
        "double": saved(folder / "double.npy", x.astype("float64")),
        "cut": saved_cut(folder / "cut.npy", x),
        "several": str(folder / "several.npz"),
        "objects": str(folder / "objects.npy"),
        "text": str(folder / "text.npy"),
        "empty": str(folder / "empty.npy"),
        "missing": str(folder / "missing.npy"),
        "number": "3.5",
    }


def saved_cut(path, array):
    np.save(path, array)
    path.write_bytes(path.read_bytes()[:-7])
    return str(path)


REFUSED = {
    "none": (
        [],
        "inputs are: 'update'. Pass an array for each, in this order; received 0",
    ),
    "two": (["good", "good"], "received 2."),
    "turned": (["turned"], "shape (8, 4); received (4, 8)"),
    "double": (["double"], "dtype float32; received float64. Cast it"),
    "cut": (["cut"], "is no .npy file of numbers"),
    "several": (["several"], "holds several arrays"),
    "objects": (["objects"], "is no .npy file of numbers"),
    "text": (["text"], "is no .npy file of numbers"),
    "empty": (["empty"], "is no .npy file of numbers"),
    "missing": (["missing"], "There is no file"),
    "number": (["number"], "shape (8, 4); received ()"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arrays_are_refused(capsys, tmp_path, x, name):
    chosen, message = REFUSED[name]
    path, files = exported(tmp_path), inputs(tmp_path, x)
    before = sorted(os.listdir(tmp_path))
    words = ["run", path, *(files[key] for key in chosen)]
    line = refused(capsys, *words, "--out", tmp_path / "out.npy")
    assert message in line
    assert sorted(os.listdir(tmp_path)) == before


def test_wrong_outputs_and_options_are_refused(capsys, tmp_path, x):
    path, update = exported(tmp_path), saved(tmp_path / "x.npy", x)
    out = tmp_path / "out.npy"

    def refuse(*words):
        return refused(capsys, "run", path, update, *words)

    assert "required: --out" in refuse()
    assert "each of the 1 outputs ('polar_factor'); received 2" in refuse(
        "--out", out, tmp_path / "b.npy"
    )
    assert "There is no folder" in refuse("--out", tmp_path / "none" / "out.npy")
    assert "Unknown --device: 'gpu'" in refuse("--out", out, "--device", "gpu")
    assert "--threads must be at least 1" in refuse("--out", out, "--threads", "0")
    assert "--threads must be at most 1024" in refuse("--out", out, "--threads", "9999")
    assert "'-' is no file" in refuse("--out", "-")
    step = exported_step(tmp_path)
    line = refused(capsys, "run", step, update, "--out", out, out)
    assert "a file of its own for each of the 2 outputs" in line


def test_wrong_models_are_refused(capsys, tmp_path, x):
    path, update = exported(tmp_path), saved(tmp_path / "x.npy", x)
    words = ["run", path, update, "--out", tmp_path / "out.npy"]
    content = path.read_bytes()
    path.write_bytes(content[:500])
    assert "is the beginning of an ONNX file" in refused(capsys, *words)
    path.write_text("Dear diary")
    assert "is no ONNX model" in refused(capsys, *words)
    # An opset that no released runtime has.
    model = onnx.load_model_from_string(content)
    model.opset_import[0].version = 99
    seal(model)
    path.write_bytes(model.SerializeToString())
    assert "ONNX Runtime refuses the file" in refused(capsys, *words)
    path.unlink()
    assert "There is no file" in refused(capsys, *words)
