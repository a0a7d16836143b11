"""--test-data: the layout of the ONNX backend tests, replayed."""

import os

import numpy as np
import onnx
import pytest
from cli_runs import refused
from onnx_runtimes import by_onnxruntime

from keras_muon.export.cli import main

DATA = {
    "single": ("newton-schulz --shape 8x4", 1),
    "open": ("newton-schulz --shape m,n --batch k --dynamic", 2),
    "half_open": ("newton-schulz --shape m,5 --dynamic", 2),
    "square": ("newton-schulz --shape m,m --dynamic", 1),
    "muon": ("step --rule muon --shape 8x4 --batch 2", 1),
    "adamw": (
        "step --rule adamw --shape scalar --dtype float64",
        1,
    ),
}


@pytest.mark.parametrize("name", DATA)
def test_test_data_replays_on_onnxruntime(tmp_path, name):
    """The layout of the ONNX backend tests; largest error seen 8e-7."""
    command, count = DATA[name]
    path = tmp_path / "graph.onnx"
    assert main(["export", *command.split(), str(path), "--test-data"]) == 0
    folder = tmp_path / "graph"
    sets = sorted(folder.glob("test_data_set_*"))
    assert (folder / "model.onnx").read_bytes() == path.read_bytes()
    assert [s.name for s in sets] == [f"test_data_set_{n}" for n in range(count)]
    model = onnx.load(folder / "model.onnx")
    for data_set in sets:
        inputs, outputs = (
            [loaded(data_set / f"{role}_{n}.pb", port) for n, port in enumerate(ports)]
            for role, ports in (
                ("input", model.graph.input),
                ("output", model.graph.output),
            )
        )
        results = by_onnxruntime(model, *inputs)
        results = results if isinstance(results, tuple) else [results]
        for result, expected in zip(results, outputs, strict=True):
            np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)
            assert np.any(expected)


def loaded(path, port):
    tensor = onnx.load_tensor(path)
    assert tensor.name == port.name
    return onnx.numpy_helper.to_array(tensor)


def test_test_data_is_replaced_only_by_force_and_never_with_other_files(
    capsys, tmp_path
):
    words = ["export", "newton-schulz", tmp_path / "a.onnx", "--shape", "8x4"]
    words += ["--test-data"]
    assert main([str(word) for word in words]) == 0
    (tmp_path / "a.onnx").unlink()
    capsys.readouterr()
    assert "a' exists" in refused(capsys, *words)
    extra = tmp_path / "a" / "test_data_set_9"
    extra.mkdir()
    assert main([*map(str, words), "--force"]) == 0
    assert not extra.exists()
    capsys.readouterr()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    line = refused(capsys, *words, "--force")
    assert "holds more than test data ('notes.txt')" in line
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["a", "a.onnx"]


def test_test_data_needs_a_name(capsys, tmp_path):
    options = ["--shape", "8x4", "--test-data"]
    line = refused(capsys, "export", "newton-schulz", "-", *options)
    assert "OUT must be a file" in line
    line = refused(capsys, "export", "newton-schulz", tmp_path / "polar", *options)
    assert "Call it 'polar.onnx'" in line
    (tmp_path / "a").write_text("a file")
    line = refused(capsys, "export", "newton-schulz", tmp_path / "a.onnx", *options)
    assert "is not replaced" in line
