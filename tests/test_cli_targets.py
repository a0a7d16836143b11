"""Where an export may write, and that a failure leaves everything as it was."""

import os
import re
import stat

import pytest
from cli_runs import refused

from keras_muon.export import cli_export, newton_schulz, serialized, target
from keras_muon.export.cli import main


def test_targets_that_cannot_be_written_are_refused(capsys, tmp_path):
    def refuse(path, *options):
        words = ["export", "newton-schulz", path, "--shape", "8x4", *options]
        return refused(capsys, *words)

    existing = tmp_path / "a.onnx"
    existing.write_text("old")
    assert "exists. Choose another name, or replace it by --force" in refuse(existing)
    assert "There is no folder" in refuse(tmp_path / "none" / "a.onnx")
    assert "There is no folder" in refuse(existing / "a.onnx")
    assert "is no regular file" in refuse(tmp_path, "--force")
    assert "is no regular file" in refuse(os.devnull, "--force")
    dangling = tmp_path / "dangling.onnx"
    dangling.symlink_to(tmp_path / "none" / "b.onnx")
    assert "dangling.onnx' is a link to" in refuse(dangling)
    assert existing.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "dangling.onnx"]


def test_force_replaces_the_file_behind_a_link_and_keeps_usual_permissions(tmp_path):
    file, link = tmp_path / "file.onnx", tmp_path / "link.onnx"
    file.write_text("old")
    usual = stat.S_IMODE(file.stat().st_mode)
    link.symlink_to(file)
    words = ["export", "newton-schulz", str(link), "--shape", "8x4", "--force"]
    assert main(words) == 0
    assert link.is_symlink()
    assert file.read_bytes() == serialized(newton_schulz((8, 4)))
    assert stat.S_IMODE(file.stat().st_mode) == usual


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_force_keeps_the_permissions_of_the_old_file(tmp_path, mode):
    path = tmp_path / "a.onnx"
    path.write_text("old")
    path.chmod(mode)
    words = ["export", "newton-schulz", str(path), "--shape", "8x4", "--force"]
    assert main([*words, "--verify", "none"]) == 0
    assert path.read_bytes() == serialized(newton_schulz((8, 4)))
    assert stat.S_IMODE(path.stat().st_mode) == mode


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


FAILURES = {
    "folder": (
        (target.tempfile, "TemporaryDirectory"),
        PermissionError(13, "Permission denied", "x"),
        "Cannot write '.*/a.onnx': Permission denied. Choose another place, or get",
        2,
    ),
    "disk": (
        (cli_export.Path, "write_bytes"),
        OSError(28, "No space left on device"),
        "Cannot write '.*/a.onnx': No space left on device. Free some space, or",
        2,
    ),
    "interrupt": ((cli_export, "check_list"), KeyboardInterrupt(), "interrupted", 130),
    "memory": ((cli_export, "check_list"), MemoryError("4 TB"), "memory: 4 TB", 2),
    "late": ((cli_export, "place"), PermissionError("not here"), "not here", 2),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_leave_the_old_file_and_nothing_else(
    monkeypatch, capsys, tmp_path, name
):
    place, error, message, code = FAILURES[name]
    old = tmp_path / "a.onnx"
    old.write_text("old")
    words = ["export", "newton-schulz", old, "--shape", "8x4", "--force"]
    monkeypatch.setattr(*place, failing(error))
    line = refused(capsys, *words, code=code)
    assert re.search(message, line), line
    assert old.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.onnx"]


def test_a_file_that_appears_meanwhile_is_not_replaced(monkeypatch, capsys, tmp_path):
    path = tmp_path / "a.onnx"

    def check_list(*arguments):
        path.write_text("theirs")
        return []

    monkeypatch.setattr(cli_export, "check_list", check_list)
    refused(capsys, "export", "newton-schulz", path, "--shape", "8x4")
    assert path.read_text() == "theirs"
