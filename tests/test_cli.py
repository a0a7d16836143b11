"""The command line as a whole: help, exit codes, what it imports, how it is called."""

import argparse
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from cli_runs import exported, refused

from keras_muon.export import adamw_step, cli, muon_step, newton_schulz
from keras_muon.export.cli import main
from keras_muon.export.cli_options import ARGUMENTS, DEFAULTS, OPTIONS
from keras_muon.export.cli_parser import parser
from keras_muon.version import __version__

ROOT = Path(__file__).parent.parent
BUILDERS = {
    "newton_schulz": newton_schulz,
    "muon_step": muon_step,
    "adamw_step": adamw_step,
}


def parsers(root, words=()):
    """Every parser of the command line, by its words."""
    yield words, root
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from parsers(child, (*words, name))


PARSERS = dict(parsers(parser()))


@pytest.mark.parametrize("words", PARSERS, ids=" ".join)
def test_help_begins_with_an_example_that_works(monkeypatch, capsys, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--help"]) == 0
    printed = capsys.readouterr().out
    program, *example = shlex.split(printed.splitlines()[0])
    assert program == "keras-muon"
    assert tuple(example[: len(words)]) == words
    if words and words[0] != "export":
        exported(tmp_path)
    np.save("update.npy", np.ones((8, 4), "float32"))
    assert main(example) == 0
    assert "usage: keras-muon" in printed


def test_options_are_the_arguments_of_the_functions():
    """And the defaults that the help names are theirs."""
    for kind, build in BUILDERS.items():
        parameters = inspect.signature(build).parameters
        assert set(ARGUMENTS[kind]) == parameters.keys()
        for name in ARGUMENTS[kind]:
            text = OPTIONS[name].get("help", "")
            default = parameters[name].default
            found = re.search(r"\(default: (\S+)\)", text)
            if name in DEFAULTS.get(kind, {}):
                assert DEFAULTS[kind][name] == default
            elif found:
                assert found[1] == str(default)
            else:
                assert default in (None, True, False, inspect.Parameter.empty)
    assert {name for names in ARGUMENTS.values() for name in names} == OPTIONS.keys()


def test_usage_errors_are_one_line(capsys):
    assert "required: COMMAND. See keras-muon --help" in refused(capsys)
    assert "invalid choice: 'exprt'" in refused(capsys, "exprt")
    assert "required: GRAPH" in refused(capsys, "export")
    assert "required: FILE.onnx" in refused(capsys, "verify")
    assert "unrecognized arguments: --fast" in refused(
        capsys, "verify", "a.onnx", "--fast"
    )


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_messages_speak_of_options():
    message = "`beta_1` and `other`: pass dynamic=True, dtype='float32', x=True."
    expected = "--beta-1 and `other`: pass --dynamic, --dtype float32, x=True."
    assert cli.in_options(message) == expected


def test_the_entry_point_is_main():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["keras-muon"].partition(":")
    assert getattr(import_module(module), name) is main


def python(*words, **environment):
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_m_runs_the_same(tmp_path):
    path = exported(tmp_path)
    answer = python("-m", "keras_muon.export", "verify", path, "--verify", "none")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "good. All checks passed." in answer.stdout
    answer = python("-m", "keras_muon.export", "verify", tmp_path / "none.onnx")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("keras-muon: error: There is no file")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_no_error(tmp_path, unbuffered):
    path = exported(tmp_path)
    code = f"""
import os, sys
from keras_muon.export.cli import main
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
sys.exit(main(["inspect", {str(path)!r}]))
"""
    answer = python("-c", code, PYTHONUNBUFFERED=unbuffered)
    assert (answer.returncode, answer.stderr) == (cli.PIPE_CLOSED, "")


IMPORTED = """
import sys
from keras_muon.export.cli import main
code = main(sys.argv[1:])
tops = {name.partition(".")[0] for name in sys.modules}
print(code, *sorted(tops), file=sys.stderr)
"""
HEAVY = {"jax", "keras", "onnx", "onnxruntime", "tensorflow", "torch"}


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--help"], set()),
        (["export", "step", "--help"], set()),
        (["export", "step"], set()),
        (["verify", "FILE", "--verify", "reference"], {"onnx"}),
        (["inspect", "FILE"], {"onnx"}),
        (["verify", "FILE"], {"onnx", "onnxruntime"}),
    ],
    ids=lambda words: " ".join(sorted(words)),
)
def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path, words, needed):
    path = exported(tmp_path)
    words = [path if word == "FILE" else word for word in words]
    answer = python("-c", IMPORTED, *words)
    code, *tops = answer.stderr.splitlines()[-1].split()
    assert code == ("2" if words == ["export", "step"] else "0")
    assert HEAVY & set(tops) == needed


HIDDEN = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from keras_muon.export.cli import main
sys.exit(main(sys.argv[2:]))
"""


def test_a_missing_extra_exits_with_3_and_the_pip_line(tmp_path):
    path, out = exported(tmp_path), tmp_path / "out"
    np.save(tmp_path / "x.npy", np.ones((8, 4), "float32"))
    missing = {
        "onnxruntime": [
            ["run", path, tmp_path / "x.npy", "--out", out],
            ["verify", path, "--verify", "onnxruntime"],
            ["export", "newton-schulz", out, "--shape=8x4", "--verify=onnxruntime"],
        ],
        "onnx": [
            ["verify", path],
            ["export", "newton-schulz", out, "--shape=8x4"],
        ],
    }
    for module, commands in missing.items():
        for words in commands:
            answer = python("-c", HIDDEN, module, *words)
            assert (answer.returncode, answer.stdout) == (3, "")
            assert answer.stderr.count("\n") == 1
            assert f'pip install "keras-muon[{module}]"' in answer.stderr
    assert sorted(os.listdir(tmp_path)) == ["polar.onnx", "x.npy"]


def test_without_onnxruntime_the_reference_evaluator_is_enough(tmp_path):
    path = tmp_path / "a.onnx"
    words = ["export", "newton-schulz", path, "--shape", "8x4"]
    answer = python("-c", HIDDEN, "onnxruntime", *words)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "left out" in answer.stdout
    assert "keras-muon[onnxruntime]" in answer.stdout
    assert path.exists()
