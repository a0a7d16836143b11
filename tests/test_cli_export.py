"""keras-muon export: what is written, after which checks."""

import hashlib
import json
import os
import shlex

import pytest
from cli_runs import answered, refused

from keras_muon import Schedule
from keras_muon.export import (
    adamw_step,
    cli_export,
    muon_step,
    newton_schulz,
    serialized,
)
from keras_muon.export.cli import main

TO_STDOUT = ["export", "newton-schulz", "-", "--shape", "8x4"]

# A command line, and the function call that it stands for.
COMMANDS = {
    "default": ("--shape 8x4", lambda: newton_schulz((8, 4))),
    "all": (
        "--shape 8x4 --batch 3 --schedule you --steps 4 --side in --dtype float64 "
        "--opset 20",
        lambda: newton_schulz(
            (8, 4),
            batch=3,
            schedule="you",
            steps=4,
            side="in",
            dtype="float64",
            opset=20,
        ),
    ),
    "panels": (
        "--shape 512x520 --panels 2 --method planned --schedule auto",
        lambda: newton_schulz((512, 520), panels=2, method="planned", schedule="auto"),
    ),
    "open": (
        "--shape m,n --batch k --dynamic --emulate float16",
        lambda: newton_schulz(("m", "n"), batch="k", dynamic=True, emulate="float16"),
    ),
    "own": (
        "--shape 8x4 --schedule '2,-1.5,.5;1.5,-.5,0' --steps 3",
        lambda: newton_schulz(
            (8, 4),
            steps=3,
            schedule=Schedule(((2, -1.5, 0.5), (1.5, -0.5, 0.0)), tail="repeat"),
        ),
    ),
}
STEPS = {
    "muon": ("--rule muon --shape 8x4", lambda: muon_step((8, 4))),
    "muon_all": (
        "--rule muon --shape 8x4 --batch k --momentum 0.95 --no-nesterov --scaling mup "
        "--rms 0.1 --schedule jordan --steps 3 --emulate bfloat16",
        lambda: muon_step(
            (8, 4),
            batch="k",
            momentum=0.95,
            nesterov=False,
            scaling="mup",
            rms=0.1,
            schedule="jordan",
            steps=3,
            emulate="bfloat16",
        ),
    ),
    "adamw": ("--rule adamw --shape scalar", lambda: adamw_step(())),
    "adamw_all": (
        "--rule adamw --shape 2x3x5 --beta-1 0.8 --beta-2 0.99 --epsilon 1e-3 "
        "--dtype float64 --opset 26",
        lambda: adamw_step(
            (2, 3, 5), beta_1=0.8, beta_2=0.99, epsilon=1e-3, dtype="float64", opset=26
        ),
    ),
}
ALL = {name: ["newton-schulz", COMMANDS[name]] for name in COMMANDS}
ALL |= {name: ["step", STEPS[name]] for name in STEPS}


@pytest.mark.parametrize("name", ALL)
def test_a_command_writes_what_the_function_returns(capsys, tmp_path, name):
    graph, (options, build) = ALL[name]
    path = tmp_path / "graph.onnx"
    answer = answered(capsys, "export", graph, path, *shlex.split(options))
    content = path.read_bytes()
    assert content == serialized(build())
    assert os.listdir(tmp_path) == ["graph.onnx"]
    assert answer["sha256"] == hashlib.sha256(content).hexdigest()
    assert (answer["bytes"], answer["written"]) == (len(content), True)
    rows = {row["name"]: row for row in answer["checks"]}
    assert {row["result"] for row in rows.values()} == {"ok"}
    assert {"standard", "shapes", "specification"} <= rows.keys()
    assert ("state in place" in rows) == (graph == "step")
    for runtime in ("reference evaluator", "ONNX Runtime"):
        assert 0 < rows[runtime]["error"] <= rows[runtime]["bound"] <= 0.1


@pytest.mark.parametrize(
    ("verify", "runtimes"),
    [
        ("auto", {"reference evaluator", "ONNX Runtime"}),
        ("none", set()),
        ("reference", {"reference evaluator"}),
        ("onnxruntime", {"ONNX Runtime"}),
    ],
)
def test_verify_chooses_who_computes(capsys, tmp_path, verify, runtimes):
    words = ["export", "newton-schulz", tmp_path / "a.onnx", "--shape", "8x4"]
    answer = answered(capsys, *words, "--verify", verify)
    names = {row["name"] for row in answer["checks"]}
    assert names == {"standard", "shapes", "specification"} | runtimes


def test_matrices_of_minutes_are_left_out_visibly(capsys, tmp_path):
    words = ["export", "newton-schulz", tmp_path / "a.onnx", "--shape"]
    answer = answered(capsys, *words, "2600x2600")
    for row in answer["checks"][-2:]:
        assert row["result"] == "left_out"
        assert "2600x2600 takes minutes; name a runtime in --verify" in row["detail"]


def test_the_table_shows_errors_and_bounds(capsys, tmp_path):
    path = tmp_path / "a.onnx"
    assert main(["export", "newton-schulz", str(path), "--shape", "8x4"]) == 0
    printed = capsys.readouterr().out
    assert "newton_schulz" in printed
    for word in ("ok", "1e-05", "float64 oracle, 8x4", "reference evaluator"):
        assert word in printed


def test_standard_output_gets_the_file_and_nothing_else(capsysbinary, tmp_path):
    assert main([*TO_STDOUT, "--json"]) == 0
    printed = capsysbinary.readouterr()
    assert printed.out == serialized(newton_schulz((8, 4)))
    assert json.loads(printed.err)["written"] is True


def test_a_failed_check_writes_nothing_and_exits_with_1(monkeypatch, capsys, tmp_path):
    """The builder is broken: its file does not compute what its specification says."""

    def broken(*shape, **arguments):
        model = newton_schulz(*shape, **arguments)
        (node,) = [n for n in model.graph.node if n.name == "step_3/polynomial"]
        (beta,) = [a for a in node.attribute if a.name == "beta"]
        beta.f *= 1.01
        return model

    monkeypatch.setitem(cli_export.BUILDERS, "newton_schulz", broken)
    path = tmp_path / "a.onnx"
    words = ["export", "newton-schulz", path, "--shape", "8x4"]
    answer = answered(capsys, *words, code=1)
    rows = {row["name"]: row for row in answer["checks"]}
    # The broken builder rebuilds its own bytes; only the oracle can tell.
    assert rows["specification"]["result"] == "ok"
    for runtime in ("reference evaluator", "ONNX Runtime"):
        assert rows[runtime]["result"] == "failed"
        assert rows[runtime]["error"] > 1e-3
    assert answer["written"] is False
    assert main([*map(str, words)]) == 1
    printed = capsys.readouterr().out
    assert "NOT written: a check failed" in printed
    assert "FAILED" in printed
    assert main(TO_STDOUT) == 1
    assert capsys.readouterr().out == ""
    assert os.listdir(tmp_path) == []


def test_a_terminal_gets_no_binary(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "is a terminal" in refused(capsys, *TO_STDOUT)
