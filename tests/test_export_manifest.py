"""manifest.json and its folder: what is no manifest, was edited, or is not ours."""

import json
import os

import pytest
from small_models import built

from keras_muon.export import StepRunner, optimizer_step, variable_values

HEADER = '{"format": "keras_muon.optimizer_step", "format_version": '


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "Not a manifest of format"),
        ("[]", "Not a manifest of format"),
        ("no JSON", "cannot be read"),
        (HEADER + "1}", "version 2"),
        (HEADER + "2}", "not as optimizer_step wrote it"),
    ],
)
def test_other_manifests_are_refused(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        StepRunner(tmp_path, {})


def test_folders_without_a_manifest_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json in"):
        StepRunner(tmp_path / "missing", {})


@pytest.mark.parametrize(
    ("field", "value"),
    [("iterations", -5), ("iterations", "5"), ("adam_ratio", -3.0), ("buckets", [])],
)
def test_an_edited_manifest_is_refused(tmp_path, field, value):
    """A step count below zero would turn all of AdamW's parameters into NaN."""
    model = built()
    folder = optimizer_step(model, tmp_path / "step")
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(
        ValueError, match=r"manifest\.json.*not as optimizer_step wrote"
    ):
        StepRunner(folder, *variable_values(model), device="cpu")


def test_an_edited_bucket_is_refused(tmp_path):
    """The digest covers what lies deeper, too."""
    model = built()
    folder = optimizer_step(model, tmp_path / "step")
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    values["buckets"][0]["weight_decay"] = 5.0
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="not as optimizer_step wrote it"):
        StepRunner(folder, *variable_values(model), device="cpu")


def test_another_layout_of_the_same_manifest_is_read(tmp_path):
    """What counts is what it says: an editor may have indented it."""
    model = built()
    folder = optimizer_step(model, tmp_path / "step")
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert StepRunner(folder, *variable_values(model), device="cpu").iterations == 0


def test_a_manifest_of_something_else_is_never_replaced(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text('{"my": 1}')
    for force in (False, True):
        with pytest.raises(FileExistsError, match="is not of an export"):
            optimizer_step(built(), tmp_path, force=force)
    assert path.read_text() == '{"my": 1}'
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("folder", "error", "message"),
    [
        ("", ValueError, "`folder` must be the path of a folder; received ''"),
        ("a\0b", ValueError, "`folder` must be the path of a folder"),
        (None, TypeError, "`folder` must be a path; received None"),
        ("x" * 300, OSError, "Cannot write `folder` 'x+': .*shorter name"),
    ],
    ids=["empty", "null", "none", "long"],
)
def test_what_is_no_folder_is_refused_by_name(
    tmp_path, monkeypatch, folder, error, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        optimizer_step(built(), folder)
    assert os.listdir(tmp_path) == []


def test_a_file_as_parent_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"Cannot write `folder` .*file/step'"):
        optimizer_step(built(), tmp_path / "file" / "step")


def test_force_is_a_flag(tmp_path):
    with pytest.raises(TypeError, match="`force` must be True or False"):
        optimizer_step(built(), tmp_path / "step", force="no")


def test_what_is_no_optimizer_is_refused_by_name(tmp_path):
    for received in (None, type(built().optimizer)):
        with pytest.raises(
            TypeError, match="`optimizer_or_model` must be a keras_muon"
        ):
            optimizer_step(received, tmp_path / "step")
