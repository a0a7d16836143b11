"""All implementations agree: backends, NumPy, both ONNX runtimes, and the SVD.

The command of `examples/benchmarks` runs once, each implementation in its own process.
"""

import importlib.util
import json
import os
import sys

import equivalence
import numpy as np
import pytest
import whole_step
from cases import CASES, DTYPES, NEARLY_EMPTY, inputs, polar_by_svd
from differences import STEP_LIMIT, exceeded, limit, pairwise
from implementations import BACKENDS, key

from keras_muon import SCHEDULES
from keras_muon.export import variable_values

# The backends that the environment of each tests against each other.
PROMISED = {
    "tensorflow": {"tensorflow", "torch"},
    "jax": {"jax", "torch"},
    "torch": {"tensorflow", "jax", "torch"},
}
OTHERS = {"numpy", "reference", "onnxruntime", "svd"}
JORDAN = SCHEDULES["jordan"].take()
SIZES = {"width": 32, "layers": 2}
ALL_CASES = pytest.mark.parametrize("case", CASES)
ALL_DTYPES = pytest.mark.parametrize("dtype", DTYPES)


def test_the_environment_holds_the_backends_that_it_promises(backend):
    """There may be more: keras-hub brings TensorFlow along."""
    installed = {name for name in BACKENDS if importlib.util.find_spec(name)}
    assert installed >= PROMISED[backend]


@pytest.fixture(scope="module")
def hidden():
    """Backends that are not promised look as if they were not installed."""
    with pytest.MonkeyPatch.context() as patch:
        for name in set(BACKENDS) - PROMISED[os.environ["KERAS_BACKEND"]]:
            patch.setitem(sys.modules, name, None)
        yield


@pytest.fixture(scope="module")
def report(hidden, tmp_path_factory):
    """What the command writes for a small GPT."""
    folder = tmp_path_factory.mktemp("equivalence")
    sizes = [f"--{name}={value}" for name, value in SIZES.items()]
    options = ["--schedules", "jordan", f"--folder={folder}", "--allow-missing"]
    code = equivalence.main([*options, *sizes])
    assert (folder / "equivalence.png").stat().st_size > 10_000
    content = json.loads((folder / "equivalence.json").read_text())
    return content | {"exit code": code}


def test_all_that_is_promised_was_compared(backend, report):
    names = PROMISED[backend] | OTHERS
    assert set(report["implementations"]) == names
    assert set(report["missing"]) == set(BACKENDS) - PROMISED[backend]
    pairs = len(names) * (len(names) - 1) // 2
    assert {len(entry) for entry in report["newton_schulz"].values()} == {pairs}
    compared = {f"{dtype}/jordan/{case}" for dtype in DTYPES for case in CASES}
    assert report["newton_schulz"].keys() == compared


def test_the_command_finds_no_problem(report):
    assert report["problems"] == []
    assert report["exit code"] == 0


@ALL_DTYPES
@ALL_CASES
def test_every_pair_agrees(report, dtype, case):
    """At most 5e-6 in float32; see `cases.NEARLY_EMPTY` for the three exceptions."""
    differences = report["newton_schulz"][key(dtype, "jordan", case)]
    assert max(differences.values()) <= limit(dtype, case)
    assert (limit("float32", case) > 5e-6) == (case in NEARLY_EMPTY)


@pytest.mark.parametrize("case", [case for case in CASES if case != "zero"])
def test_the_limits_are_smaller_than_mistakes(case):
    """A first coefficient wrong in its fourth digit; factors rounded to float32."""
    x = inputs("float64")[case]
    exact = polar_by_svd(x, JORDAN)
    a, b, c = JORDAN[0]
    wrong = polar_by_svd(x, ((a + 1e-3, b, c), *JORDAN[1:]))
    rounded = polar_by_svd(x, np.float32(JORDAN).astype("float64"))
    assert np.abs(wrong - exact).max() > 2 * limit("float32", case)
    assert np.abs(rounded - exact).max() > 100 * limit("float64", case)


def test_50_steps_agree(backend, report):
    """Largest difference seen 2.4e-7; every variable moves by 0.1 or more."""
    names = PROMISED[backend] | {"onnxruntime"}
    differences = report["steps"]["differences"]
    assert len(differences) == len(names) * (len(names) - 1) // 2
    assert max(differences.values()) <= STEP_LIMIT == 2e-5
    assert report["steps"]["moved"] > 1e3 * STEP_LIMIT


MISTAKES = {
    "no_momentum": {"momentum": 0.0},
    "no_decay": {"weight_decay": None},
    "no_nesterov": {"nesterov": False},
    "another_schedule": {"schedule": "jordan"},
    "another_beta": {"adam_beta_2": 0.96},
}


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """Parameters before and after 50 steps of the exported optimizer."""
    return after_50_steps(tmp_path_factory.mktemp("right"))


def after_50_steps(folder, **settings):
    model = whole_step.exported(folder=folder, **SIZES, **settings)
    before, _ = variable_values(model)
    return whole_step.by_onnxruntime(folder, before, 50, "cpu")


@pytest.mark.parametrize("name", MISTAKES)
def test_steps_with_a_mistake_are_far_outside(right, tmp_path, name):
    """The smallest, a forgotten decay of 0.004, is 40 limits away."""
    wrong = after_50_steps(tmp_path, **MISTAKES[name])
    assert max(np.abs(wrong[n] - right[n]).max() for n in right) > 10 * STEP_LIMIT


def test_missing_backends_are_named(monkeypatch, capsys):
    """Before anything runs, with the exit code 1."""
    monkeypatch.setitem(sys.modules, "jax", None)
    assert equivalence.main([]) == 1
    assert "missing: jax (jax is not installed)" in capsys.readouterr().out


def test_without_a_backend_nothing_is_compared(monkeypatch):
    for name in BACKENDS:
        monkeypatch.setitem(sys.modules, name, None)
    assert equivalence.main(["--allow-missing"]) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.0 + 6e-6])
def test_one_wrong_entry_is_found(value):
    """In one case of one dtype, in one implementation."""
    names = [key(dtype, "jordan", case) for dtype in DTYPES for case in CASES]
    results = {n: {name: np.ones(4) for name in names} for n in ("one", "other")}
    assert exceeded(results) == []
    results["other"]["float32/jordan/wide"] = np.array([1.0, 1.0, value, 1.0])
    assert [problem.partition(":")[0] for problem in exceeded(results)] == [
        "float32, wide"
    ]
    found = pairwise(results, "float32/jordan/wide")
    assert not found[0, 1] <= limit("float32", "wide")
