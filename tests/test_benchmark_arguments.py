"""The benchmarks refuse a bad command line before they measure, in words."""

import argparse
import doctest
import functools
import importlib.util
import os
from pathlib import Path

import argument_types
import pytest
from argument_types import file_to_write, folder_to_write, plot_to_write, whole_number

FOLDER = Path(argument_types.__file__).parent
WRITERS = (
    "newton_schulz_share",
    "onnx_runtimes",
    "optimizer_step",
    "quality",
    "scaling",
    "training_curves",
    "training_overhead",
)
PLOTTERS = ("optimizer_step", "scaling", "training_curves")
QUICK = ("newton_schulz_share", "optimizer_step", "scaling", "training_overhead")


@functools.cache
def module_of(script):
    """From its file: a module of the tests has the name of one of them."""
    path = FOLDER / f"{script}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{script}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def accepted(script, *words):
    return module_of(script).parsed(words)


def refused(script, capsys, *words):
    """What a script says when it leaves with argparse's code for a bad argument."""
    with pytest.raises(SystemExit) as leaving:
        accepted(script, *words)
    assert leaving.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "tried"),
    [("json", WRITERS), ("plot", PLOTTERS), ("folder", ["equivalence"])],
)
def test_every_script_that_writes_is_tried(option, tried):
    """A new one without a check fails here."""
    sources = {path.stem: path.read_text("utf-8") for path in FOLDER.glob("*.py")}
    del sources["argument_types"]  # has one in an example
    found = {name for name, text in sources.items() if f'"--{option}"' in text}
    assert found == set(tried)


@pytest.mark.parametrize("script", WRITERS)
def test_numbers_need_a_folder_that_is_there(script, capsys, tmp_path):
    """Not after the whole measurement, which would be lost."""
    path = tmp_path / "no" / "numbers.json"
    message = refused(script, capsys, "--json", str(path))
    assert f"--json: cannot write {str(path)!r}: there is no folder" in message
    assert f"{str(path.parent)!r}. Make it, or name another." in message
    path = tmp_path / "numbers.json"
    assert accepted(script, "--json", str(path)).json == path
    assert not path.exists()


@pytest.mark.parametrize("script", PLOTTERS)
def test_plots_need_a_folder_and_a_suffix(script, capsys, tmp_path):
    message = refused(script, capsys, f"--plot={tmp_path}/no/plot.png")
    assert "--plot: cannot write" in message
    assert "there is no folder" in message
    message = refused(script, capsys, f"--plot={tmp_path}/plot.txt")
    assert "--plot: cannot write" in message
    assert ".png, .pdf, .svg" in message
    for suffix in (".png", ".PDF", ".svg"):
        path = tmp_path / f"plot{suffix}"
        assert accepted(script, f"--plot={path}").plot == path


def test_the_default_plot_is_checked_too(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert accepted("training_curves").plot == Path("training_curves.png")
    (tmp_path / "training_curves.png").mkdir()
    assert "it is a folder" in refused("training_curves", capsys)


def test_a_folder_is_made_in_one_that_is_there(capsys, tmp_path):
    message = refused("equivalence", capsys, f"--folder={tmp_path}/no/folder")
    assert f"--folder: cannot write '{tmp_path}/no/folder'" in message
    assert "there is no folder" in message
    file = tmp_path / "file"
    file.touch()
    message = refused("equivalence", capsys, f"--folder={file}")
    assert "it is a file. Name a folder." in message
    for folder in (tmp_path, tmp_path / "new"):
        assert accepted("equivalence", f"--folder={folder}").folder == folder


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "Name a file in it"), (".", "Name a file in it"), (300 * "x", "too long")],
)
def test_names_of_no_file_are_refused(name, reason):
    with pytest.raises(argparse.ArgumentTypeError, match=reason):
        file_to_write(name)


@pytest.mark.parametrize("type_", [file_to_write, plot_to_write, folder_to_write])
def test_what_is_read_only_is_refused(type_, tmp_path, monkeypatch):
    """The system's answer is made up: root, who may run this, may write anywhere."""
    asked = []

    def access(path, mode):
        asked.append((str(path), mode))
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(argparse.ArgumentTypeError, match="read-only"):
        type_(f"{tmp_path}/new.png")
    assert asked == [(str(tmp_path), os.W_OK)]


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "three", ""])
def test_only_whole_numbers_count(text):
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        whole_number()(text)
    message = f"must be a whole number, at least 1; got {text!r}."
    assert str(refusal.value) == message
    assert whole_number()("1") == 1


BAD = [
    ("equivalence", "--steps", "-1", "at least 1"),
    ("equivalence", "--steps", "0", "at least 1"),
    ("equivalence", "--width", "0", "a multiple of 4"),
    ("equivalence", "--width", "10", "a multiple of 4"),
    ("equivalence", "--layers", "0", "at least 1"),
    ("newton_schulz_share", "--layers", "0", "at least 1"),
    ("newton_schulz_share", "--rounds", "0", "at least 1"),
    ("onnx_runtimes", "--rounds", "-1", "at least 0"),
    ("optimizer_step", "--layers", "0", "at least 1"),
    ("optimizer_step", "--layers", "13", "1 to 12 for gpt2"),
    ("optimizer_step", "--rounds", "0", "at least 1"),
    ("quality", "--methods", "foo", "the schedules are default, auto"),
    ("quality", "--methods", "yuo:float32", "the schedules are default, auto"),
    ("quality", "--methods", "you:float31", "the dtypes are auto, float32"),
    ("scaling", "--rounds", "0", "at least 1"),
    ("training_curves", "--every", "0", "at least 1"),
    ("training_curves", "--schedule", "foo", "polar_express"),
    ("training_curves", "--seeds", "1", "at least 2"),
    ("training_curves", "--steps", "-1", "at least 1"),
    ("training_overhead", "--batch", "0", "at least 1"),
    ("training_overhead", "--layers", "0", "at least 1"),
    ("training_overhead", "--rounds", "0", "at least 1"),
    ("training_overhead", "--width", "10", "a multiple of 4"),
]


@pytest.mark.parametrize(("script", "option", "value", "allowed"), BAD)
def test_bad_values_are_refused(script, option, value, allowed, capsys):
    """By name, with what was received and what is allowed; --quick hides none."""
    for more in ([], ["--quick"]) if script in QUICK else ([],):
        message = refused(script, capsys, *more, option, value)
        assert option in message
        assert value in message
        assert allowed in message


@pytest.mark.parametrize("script", QUICK)
def test_quick_replaces_good_values(script):
    """What is checked before is still replaced after."""
    options = vars(accepted(script, "--quick", "--rounds=3"))
    expected = getattr(module_of(script), "QUICK", {"rounds": 3})
    assert {name: options[name] for name in expected} == expected


def test_edges_are_accepted():
    assert accepted("onnx_runtimes", "--rounds=0").rounds == 0
    assert accepted("equivalence", "--steps=1", "--width=4", "--layers=1").width == 4
    methods = ["default", "auto", "you:bfloat16", "jordan:auto"]
    assert accepted("quality", "--methods", *methods).methods == methods
    curves = accepted("training_curves", "--steps=3", "--every=3", "--schedule=you")
    assert (curves.steps, curves.schedule) == (3, "you")


@pytest.mark.parametrize("name", ["argument_types", "quality"])
def test_examples_run(name):
    found = doctest.testmod(module_of(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted > 0
    assert found.failed == 0
