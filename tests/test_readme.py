"""The README's blocks run, its names exist, and its commands are the real ones."""

import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_muon import Muon
from keras_muon.devices import products_of_bfloat16
from keras_muon.export.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, language):
    """Return the contents of the fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run_python_blocks(text):
    """Run all Python blocks in one namespace, as a reader would paste them."""
    namespace = {"__name__": "readme"}
    for number, block in enumerate(blocks(text, "python"), start=1):
        exec(compile(block, f"README block {number}", "exec"), namespace)
    return namespace


def missing_names(text):
    """Return the names and files of the formula table that do not exist."""
    rows = [line.split(" | ") for line in text.splitlines() if "`keras_muon/" in line]
    sources = {}
    for path in {p for row in rows for p in re.findall(r"`(keras_muon/\S+)`", row[-1])}:
        sources[path] = (ROOT / path).read_text() if (ROOT / path).exists() else None
    missing = [path for path, source in sources.items() if source is None]
    everything = "\n".join(p.read_text() for p in (ROOT / "keras_muon").glob("*.py"))
    for row in rows:
        for code in re.findall(r"`([a-z_A-Z]+)[^`]*`", row[-2]):
            if not re.search(rf"\b{code}\b", everything):
                missing.append(code)
    return missing


def test_python_blocks_run():
    assert "polar" in run_python_blocks(README)


def test_a_broken_block_is_noticed():
    """The guard can fail: the same README with one wrong argument."""
    broken = README.replace("weight_decay=0.1", "weight_decoy=0.1", 1)
    with pytest.raises(TypeError, match="did you mean 'weight_decay'"):
        run_python_blocks(broken)


def test_formula_table_names_what_exists():
    assert missing_names(README) == []


def test_a_wrong_name_in_the_table_is_noticed():
    assert missing_names(README.replace("`newton_schulz`", "`newton_shulz`", 1))
    assert missing_names(README.replace("scaling.py", "scalings.py", 1))


def test_first_command_installs_declared_extras_and_runs_the_quickstart(tmp_path):
    install, _, script = blocks(README, "bash")[0].strip().partition(" && ")
    extras = re.search(r"\[(.*)\]", install).group(1).split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= set(project["optional-dependencies"])
    python, path = shlex.split(script)
    assert python == "python"
    output = run_quickstart(tmp_path, ROOT / path)
    assert "keras_muon.Muon" in output
    assert "Saved, loaded, trained" in output
    assert (tmp_path / "quickstart.png").stat().st_size > 10_000


def table_rows(text):
    """Return the cells of every table's body in a text, whatever their widths."""
    lines = [line for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_quoted_routes_and_plans_are_the_quickstart_s(monkeypatch):
    """As on JAX: in float32, whatever this backend would choose; but for its stacks."""
    monkeypatch.setattr(sys, "argv", ["quickstart.py"])
    script = runpy.run_path(str(ROOT / "examples" / "quickstart.py"))
    *sizes, _ = script["SIZES"]["small"]
    model = script["build_gpt"](*sizes)
    optimizer = Muon.for_model(model, compute_dtype="float32")
    optimizer.build(model.trainable_variables)
    texts = []
    optimizer.describe(print_fn=texts.append)
    (quoted,) = [b for b in blocks(README, "text") if "Newton-Schulz" in b]
    found, expected = table_rows(texts[0]), table_rows(quoted)
    if keras.backend.backend() != "jax":
        found, expected = map(without_stacks, (found, expected))
    assert found == expected
    (reason,) = re.findall("dtype: .*", quoted)
    assert (
        reason
        == "dtype: not bfloat16, since XLA converts it for each product on a CPU."
    )
    if keras.backend.backend() == "jax":
        assert products_of_bfloat16().reason in reason


def without_stacks(table):
    """Return the rows without what differs between backends, as in `8 in 2`."""
    return [[cell.partition(" in ")[0] for cell in row] for row in table]


def run_quickstart(folder, path):
    """The README's script at its smallest, on the backend under test."""
    backend = keras.backend.backend()
    result = subprocess.run(
        [sys.executable, path, "--steps=40", "--size=tiny", f"--backend={backend}"],
        cwd=folder,
        # One thread: on busy machines torch's threads mostly wait for each other.
        env=os.environ | {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="once: commands need no backend"
)
def test_commands_of_the_command_line_run(tmp_path, monkeypatch, capsys):
    """In the README's order, in one folder, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    numbers = np.random.default_rng(0)
    np.save("update.npy", numbers.standard_normal((768, 3072), dtype="float32"))
    lines = "".join(blocks(README, "bash")[2:]).splitlines()
    installs = [line for line in lines if line.startswith("pip install")]
    extras = re.findall(r'"\.\[([\w,-]+)\]"', " ".join(installs))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert len(extras) == len(installs)
    assert set(extras) <= project["optional-dependencies"].keys()
    commands = [line for line in lines if line not in installs]
    assert len(commands) == 5
    for command in commands:
        name, *arguments = shlex.split(command)
        assert (name, main(arguments)) == ("keras-muon", 0)
    values = np.linalg.svd(np.load("factor.npy"), compute_uv=False)
    assert abs(values - 1).max() < 0.4
    # What the README shows of the check list, but for measured errors.
    shown = capsys.readouterr().out
    for row in ("inferred strictly for 25 values", "gives the same 3,566 bytes"):
        assert row in README
        assert row in shown


def test_the_javascript_is_that_of_the_example():
    """The example was run in Node; the README shows a part of it."""
    (block,) = blocks(README, "javascript")
    assert block in (ROOT / "examples/javascript/step.mjs").read_text("utf-8")


def test_second_command_is_what_continuous_integration_runs():
    command = blocks(README, "bash")[1].strip()
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[-1].replace(" --quiet", "") == command


def test_tox_runs_every_backend():
    text = (ROOT / "tox.ini").read_text()
    environments = re.search(r"env_list = (.*)", text).group(1).split(", ")
    assert {"lint", "types", "tensorflow", "jax", "torch"} <= set(environments)
