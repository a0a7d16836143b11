"""The ONNX examples run, on the backend under test, and their numbers are right."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import runtime_cells
import runtime_report

from keras_muon.export import run

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_example(path, *options):
    """What a script prints, as a user would start it."""
    # Unset: a script's own folder must be importable, as it is for a user.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    result = subprocess.run(
        [sys.executable, EXAMPLES / path, *options],
        # One thread: on busy machines torch's threads mostly wait for each other.
        env=kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_onnxruntime_alone_learns_digits_as_well_as_keras(tmp_path, backend):
    """Parameters differ by 1e-6; one test image of 449 may fall on either side.

    After 5 epochs 95% are recognized, before training 10%.
    """
    folder = tmp_path / "step"
    output = run_example(
        "export_onnx.py", "--epochs=5", f"--backend={backend}", f"--folder={folder}"
    )
    by_keras, by_onnxruntime = (
        float(re.search(rf"{name}\D*([\d.]+)%", output).group(1))
        for name in (f"Keras on {backend}", "ONNX Runtime alone")
    )
    assert by_keras > 90
    assert abs(by_keras - by_onnxruntime) <= 0.3
    difference = re.search(r"differ by at most (\S+) after 110 steps", output).group(1)
    assert float(difference) < 2e-5
    assert (folder / "manifest.json").exists()


def test_the_gradients_of_the_classifier_are_those_of_its_loss(rng, monkeypatch):
    """By central differences in float64 of the cross-entropy, in random directions."""
    monkeypatch.syspath_prepend(EXAMPLES)
    classifier = importlib.import_module("onnx_classifier")
    graph = onnx.parser.parse_model(classifier.GRADIENTS)
    shapes = [
        tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in graph.graph.input[:6]
    ]
    values = [0.3 * rng.standard_normal(shape).astype("float32") for shape in shapes]
    images = rng.random((8, 64)).astype("float32")
    labels = rng.integers(0, 10, 8)
    targets = np.eye(10, dtype="float32")[labels]

    def loss(parameters):
        w1, b1, w2, b2, w3, b3 = (p.astype("float64") for p in parameters)
        h = np.tanh(images @ w1 + b1)
        logits = np.tanh(h @ w2 + b2) @ w3 + b3
        logits -= logits.max(-1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        return -log_p[np.arange(8), labels].mean()

    *gradients, _ = run(graph, *values, images, targets, device="cpu", threads=1)
    for index, gradient in enumerate(gradients):
        direction = rng.standard_normal(gradient.shape)
        direction /= np.linalg.norm(direction)
        ends = []
        for sign in (1, -1):
            moved = [value.astype("float64") for value in values]
            moved[index] = moved[index] + sign * 1e-5 * direction
            ends.append(loss(moved))
        slope = (ends[0] - ends[1]) / 2e-5
        # Float32 gives six digits of the gradient's norm; it is 0.1 or more.
        error = abs((gradient * direction).sum() - slope)
        assert error < 1e-5 * np.linalg.norm(gradient)
        assert np.linalg.norm(gradient) > 0.1


def test_the_step_for_javascript_is_right(tmp_path):
    """What `step.mjs` demands of its runtime holds on ONNX Runtime here."""
    run_example("javascript/export_step.py", "--folder", tmp_path)
    values = json.loads((tmp_path / "step.json").read_text())
    arrays = [
        np.array(array, "float32").reshape(values["shape"])
        for array in values["inputs"].values()
    ]
    graph = onnx.load(tmp_path / "step.onnx")

    given = dict(zip(values["inputs"], arrays, strict=True))
    given |= {name: values[name] for name in ("learning_rate", "weight_decay")}
    outputs = run(graph, *(given[i.name] for i in graph.graph.input), device="cpu")
    script = (EXAMPLES / "javascript/step.mjs").read_text()
    for output, result in zip(graph.graph.output, outputs, strict=True):
        expected = np.reshape(values["outputs"][output.name], values["shape"])
        # Seen 3e-7; the script allows 1e-5.
        np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)
        assert f"result.{output.name}" in script
    for value in graph.graph.input:
        assert re.search(rf"^\s+{value.name}[,:]", script, re.MULTILINE)


@pytest.fixture(scope="module")
def cells():
    return runtime_report.run_cells()


@pytest.mark.parametrize("runtime", ["reference", "onnxruntime"])
def test_every_graph_runs_on_both_runtimes(cells, runtime):
    column = cells[runtime]
    assert len(column) == 24
    wrong = {n: c for n, c in column.items() if not runtime_report.is_right(n, c)}
    assert wrong == {}


def test_missing_runtimes_are_not_measured(cells):
    """And those that are here are; no cell is left out."""
    for runtime, module in runtime_cells.MODULES.items():
        here = importlib.util.find_spec(module) is not None
        if runtime == "cuda":
            here = runtime_report.has_cuda()
        found = set(cells[runtime].values())
        assert (found == {runtime_report.NOT_MEASURED}) == (not here)
        assert cells[runtime].keys() == cells["reference"].keys()


def test_wrong_and_refused_graphs_are_problems(cells):
    """Of float32; a runtime without float64 products is shown, not failed."""
    name = "batched, float32, opset 18"
    double = "batched, float64, opset 18"
    for cell in (1e-4, float("nan"), "Fail: no such operator"):
        changed = cells | {"reference": cells["reference"] | {name: cell}}
        assert runtime_report.problems(changed) == [f"reference: {name}: {cell}"]
    changed = cells | {"reference": cells["reference"] | {double: 1e-7}}
    assert runtime_report.problems(changed) == []
    assert not runtime_report.is_right(double, 1e-7)


def test_the_ratio_is_to_the_fastest_other():
    row = {"onnxruntime": 2.1, "jax": 2.0, "torch": 4.0}
    assert runtime_report.ratio_to_fastest(row) == pytest.approx(1.05)
    assert runtime_report.ratio_to_fastest(row | {"onnxruntime": 1.0}) == 0.5


def test_frameworks_take_turns(monkeypatch):
    """Each answers with a plausible time, in its own process."""
    monkeypatch.setattr(runtime_report, "SHAPES", ((2, 32, 48),))
    names = ("onnxruntime", "numpy", keras.backend.backend())
    monkeypatch.setattr(runtime_report, "FRAMEWORKS", names)
    times = runtime_report.run_times("cpu", rounds=2)
    assert list(times) == ["jordan 2x32x48", "auto 2x32x48"]
    for row in times.values():
        assert row.keys() == set(names)
        for turns in row.values():
            assert len(turns) == 2
            assert all(1e-6 < seconds < 10 for seconds in turns)
    table = runtime_report.time_table(times, "cpu")
    assert [column.header for column in table.columns][1:-2] == list(names)
