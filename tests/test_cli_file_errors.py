"""Errors of the operating system: which file, and what to do, in one line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_runs import exported, refused

FULL = Path("/dev/full")
LONG = 300 * "a"
TOO_LONG = "File name too long."
READABLE = "Name a file that exists and that you may read."
EXPORT = ["export", "newton-schulz", "--shape", "8x4"]


@pytest.mark.skipif(not FULL.exists(), reason="has no device that is always full")
@pytest.mark.parametrize("command", ["export", "inspect"])
def test_a_full_disk_behind_standard_output(tmp_path, command):
    path = exported(tmp_path)
    words = [*EXPORT, "-", "--json"] if command == "export" else ["inspect", path]
    with FULL.open("w") as full:
        answer = subprocess.run(
            [sys.executable, "-m", "keras_muon.export", *map(str, words)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert answer.returncode == 2
    assert answer.stderr.splitlines()[-1] == (
        "keras-muon: error: Cannot write standard output: No space left on device. "
        "Free some space, or choose another disk."
    )


def test_errors_need_no_standard_output():
    words = [sys.executable, "-m", "keras_muon.export", "verify", "none.onnx"]
    answer = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *words],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert answer.stderr == "keras-muon: error: There is no file 'none.onnx'.\n"


def test_long_names(capsys, tmp_path):
    path, out = exported(tmp_path), tmp_path / "out.npy"
    np.save(tmp_path / "x.npy", np.ones((8, 4), "float32"))
    for words in (
        ["verify", LONG],
        ["inspect", LONG],
        ["run", LONG, "--out", out],
        ["run", path, LONG, "--out", out],
    ):
        assert f"Cannot read '{LONG}': {TOO_LONG} {READABLE}" in refused(capsys, *words)
    line = refused(capsys, *EXPORT, LONG)
    assert f"Cannot write '{LONG}': {TOO_LONG} Choose a shorter name." in line
    line = refused(capsys, "run", path, tmp_path / "x.npy", "--out", LONG)
    assert f"Cannot write '{LONG}': {TOO_LONG} Choose a shorter name." in line


def deny(*_, **__):
    raise PermissionError(13, "Permission denied", "x")


def test_files_that_may_not_be_read(monkeypatch, capsys, tmp_path):
    """For the superuser there are none."""
    path, update = exported(tmp_path), tmp_path / "x.npy"
    np.save(update, np.ones((8, 4), "float32"))
    denied = f"Permission denied. {READABLE}"
    out = tmp_path / "out.npy"
    with monkeypatch.context() as patch:
        patch.setattr(np, "load", deny)
        line = refused(capsys, "run", path, update, "--out", out)
        assert f"Cannot read '{update}': {denied}" in line
    monkeypatch.setattr(Path, "read_bytes", deny)
    for words in (["verify", path], ["inspect", path], ["run", path, "--out", out]):
        assert f"Cannot read '{path}': {denied}" in refused(capsys, *words)


def test_empty_names(capsys, tmp_path):
    path, out = exported(tmp_path), tmp_path / "out.npy"
    for words in (
        [*EXPORT, ""],
        ["verify", ""],
        ["inspect", ""],
        ["run", "", "--out", out],
        ["run", path, "", "--out", out],
        ["run", path, "--out", ""],
    ):
        assert "must be the name of a file; received ''" in refused(capsys, *words)
