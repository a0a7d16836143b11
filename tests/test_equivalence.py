"""All implementations agree: backends, NumPy, both ONNX runtimes, and the SVD.

The command of `examples/benchmarks` runs once, each implementation in its own process:
in the environment of torch, which has all three backends.
"""

import dataclasses
import importlib.util
import json
import os
import sys

import equivalence
import numpy as np
import pytest
import whole_step
from cases import (
    CASES,
    COMPRESSED_NEARLY_EMPTY,
    DTYPES,
    compressed_inputs,
    inputs,
    polar_by_svd,
)
from differences import STEP_LIMIT, exceeded, keys_with_limits, limit, pairwise
from implementations import BACKENDS, key

from keras_muon import SCHEDULES
from keras_muon.export import variable_values
from keras_muon.export.oracle import compressed, polar_factor
from keras_muon.plan_choice import plan_for

# Elsewhere it would compare a part of the same again, in a minute.
pytestmark = pytest.mark.skipif(
    os.environ["KERAS_BACKEND"] != "torch", reason="the environment of torch has all"
)

OTHERS = {"numpy", "reference", "onnxruntime", "svd"}
JORDAN = SCHEDULES["jordan"].take()
SIZES = {"width": 32, "layers": 2}
# One with large leading values, whose steps share a Gram matrix, and one that lacks
# directions; the command compares three more.
COMPRESSED = ("compressed wide, 20 of 50", "compressed square, rank 32")
ALL_COMPRESSED = pytest.mark.parametrize("case", COMPRESSED)
ALL_CASES = pytest.mark.parametrize("case", CASES)
ALL_DTYPES = pytest.mark.parametrize("dtype", DTYPES)


def test_the_environment_holds_all_backends():
    installed = {name for name in BACKENDS if importlib.util.find_spec(name)}
    assert installed == set(BACKENDS)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What the command writes for a small GPT."""
    folder = tmp_path_factory.mktemp("equivalence")
    sizes = [f"--{name}={value}" for name, value in SIZES.items()]
    options = ["--schedules", "jordan", f"--folder={folder}"]
    code = equivalence.main([*options, *sizes, "--compressed", *COMPRESSED])
    assert (folder / "equivalence.png").stat().st_size > 10_000
    content = json.loads((folder / "equivalence.json").read_text())
    return content | {"exit code": code}


def test_everything_was_compared(report):
    names = OTHERS.union(BACKENDS)
    assert set(report["implementations"]) == names
    assert report["missing"] == {}
    pairs = len(names) * (len(names) - 1) // 2
    assert {len(entry) for entry in report["newton_schulz"].values()} == {pairs}
    compared = {f"{dtype}/jordan/{case}" for dtype in DTYPES for case in CASES}
    compared |= {f"{dtype}/auto/{case}" for dtype in DTYPES for case in COMPRESSED}
    assert report["newton_schulz"].keys() == compared


def test_the_command_finds_no_problem(report):
    assert report["problems"] == []
    assert report["exit code"] == 0


@ALL_DTYPES
@ALL_CASES
def test_every_pair_agrees(report, dtype, case):
    """At most 5e-6 in float32, also where a matrix lacks nearly all directions."""
    differences = report["newton_schulz"][key(dtype, "jordan", case)]
    assert max(differences.values()) <= limit(dtype, case)


@ALL_DTYPES
@ALL_COMPRESSED
def test_every_pair_agrees_after_compression(report, dtype, case):
    """At most 1e-5 in float32 where no direction is empty; see `differences`."""
    differences = report["newton_schulz"][key(dtype, "auto", case)]
    assert max(differences.values()) <= limit(dtype, case)
    assert (limit("float32", case) > 1e-5) == (case in COMPRESSED_NEARLY_EMPTY)


@ALL_COMPRESSED
def test_mistakes_in_compression_are_larger_than_its_limits(case):
    """A sign of 1152 wrong, a coefficient in its fourth digit, or no compression."""
    x = compressed_inputs("float64")[case]
    plan = plan_for(*x.shape, SCHEDULES["auto"], "float64")
    triples = [triple for segment in plan.segments for triple in segment]
    (((sign, *row), *mixtures), *groups) = plan.leading.signs
    signs = (((-sign, *row), *mixtures), *groups)
    another = dataclasses.replace(plan.leading, signs=signs)
    (a, b, c), *others = triples
    even = compressed(x, plan.leading)
    exact = polar_factor(even, triples, schatten=8)
    for wrong in (
        polar_factor(compressed(x, another), triples, schatten=8),
        polar_by_svd(x, SCHEDULES["auto"].take()),
    ):
        assert np.abs(wrong - exact).max() > 1.9 * limit("float32", case)
    wrong = polar_factor(even, ((a + 1e-3, b, c), *others), schatten=8)
    assert np.abs(wrong - exact).max() > 1e6 * limit("float64", case)
    if case not in COMPRESSED_NEARLY_EMPTY:
        assert np.abs(wrong - exact).max() > 10 * limit("float32", case)


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


def test_50_steps_agree(report):
    """Largest difference seen 4.0e-7; every variable moves by 0.1 or more."""
    names = {"onnxruntime", *BACKENDS}
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
    names = [n for dtype in DTYPES for n in keys_with_limits(dtype, COMPRESSED)]
    results = {n: {name: np.ones(4) for name in names} for n in ("one", "other")}
    assert exceeded(results, COMPRESSED) == []
    results["other"]["float32/jordan/wide"] = np.array([1.0, 1.0, value, 1.0])
    found = [problem.partition(":")[0] for problem in exceeded(results, COMPRESSED)]
    assert found == ["float32, wide"]
    results["other"]["float32/jordan/wide"] = np.ones(4)
    compressed_name = key("float64", "auto", COMPRESSED[0])
    results["other"][compressed_name] = np.array([1.0, 1.0, value, 1.0])
    found = [problem.partition(":")[0] for problem in exceeded(results, COMPRESSED)]
    assert found == [f"float64, {COMPRESSED[0]}"]
    results["other"]["float32/jordan/wide"] = np.array([1.0, 1.0, value, 1.0])
    found = pairwise(results, "float32/jordan/wide")
    assert not found[0, 1] <= limit("float32", "wide")


def test_other_schedules_must_be_finite():
    """They have no limit, and were not looked at before."""
    names = [n for dtype in DTYPES for n in keys_with_limits(dtype, COMPRESSED)]
    results = {
        n: {name: np.zeros(4) for name in [*names, "float32/auto/zero"]}
        for n in ("one", "other")
    }
    assert exceeded(results, COMPRESSED) == []
    results["other"]["float32/auto/zero"] = np.full(4, np.nan)
    assert exceeded(results, COMPRESSED) == ["float32/auto/zero: not a number"]
