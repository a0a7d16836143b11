"""The speed benchmarks run on the backend under test, and measure what they say."""

import importlib
import json
import statistics
import sys

import contenders
import interleaving
import keras
import machine
import memory
import newton_schulz_share
import numpy as np
import optimizer_step
import pytest
import scaling
import step_flops
import step_inputs
import step_models
import step_report
import step_runs
import training_overhead

QUICK = "--quick"
SHAPES = step_models.shapes_of("tiny")


def ran(script, folder, backend, *options):
    """What a script's quick form writes as JSON."""
    path = folder / "answer.json"
    words = [QUICK, "--backend", backend, "--device=cpu", "--json", str(path)]
    assert script.main([*words, *map(str, options)]) == 0
    return json.loads(path.read_text())


def asked_here(script, backend, options, device):
    """What a worker answers in this process, where Keras is imported already."""
    worker = importlib.import_module(script.removesuffix(".py"))
    answer = machine.frameworks(backend) | worker.measured(backend, options)
    return json.loads(json.dumps(answer))


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    """The answer of `optimizer_step.py`, with the path of its plot."""
    folder = tmp_path_factory.mktemp("step")
    plot = folder / "step.png"
    content = ran(optimizer_step, folder, keras.backend.backend(), "--plot", plot)
    assert plot.stat().st_size > 5_000
    return content


@pytest.fixture(scope="module")
def answer(step):
    (answer,) = step["backends"].values()
    return answer


def test_every_contender_was_timed(step, answer):
    names = contenders.names_on(keras.backend.backend())
    assert tuple(answer["contenders"]) == names
    assert {"keras_muon.Muon", "keras.optimizers.Muon"} < set(names)
    assert step["versions"]["keras"] == keras.__version__
    assert step["shapes"] == [list(shape) for shape in SHAPES]
    assert answer["device kind"] == "cpu"
    for row in answer["contenders"].values():
        assert len(row["seconds"]) == optimizer_step.QUICK["rounds"]
        assert all(1e-7 < seconds < 10 for seconds in row["seconds"])
        assert row["first call seconds"] > 0
    json.dumps(step, allow_nan=False)


def test_every_muon_orthogonalized_every_matrix(step, answer):
    """Jordan's five steps are 0.21 from the polar factor; AdamW is 3 or more."""
    assert not any(step["problems"].values())
    for name, row in answer["contenders"].items():
        if "muon" in name.lower():
            assert len(row["orthogonality errors"]) == len(SHAPES)
            assert max(row["orthogonality errors"]) < step_runs.FARTHEST
            assert row["flops"] > 0
        else:
            assert row["orthogonality errors"] is None
            assert row["flops"] == 0


def test_adamw_would_be_noticed():
    """Its first step moves every entry by the rate, whatever the gradient."""
    matrix = step_inputs.gradient((32, 64), 0)
    moved = contenders.direction(-contenders.RATE * np.sign(matrix))
    wanted = step_inputs.polar(matrix)
    assert np.linalg.norm(moved - wanted) > 2 * np.linalg.norm(wanted)
    for error in (0.9, float("nan")):
        rows = {"a": {"orthogonality errors": [0.1, error]}}
        found = step_runs.unorthogonalized({"contenders": rows})
        assert found == ["a: 1 of 2 not orthogonalized"]


def test_state_is_a_momentum_per_matrix(answer):
    """And two for AdamW; beside them a few counters and rates."""
    one = answer["momentum bytes"]
    assert one == 4 * sum(fan_in * fan_out for fan_in, fan_out in SHAPES)
    for name, row in answer["contenders"].items():
        copies = 1 if contenders.is_muon(name) else 2
        assert copies <= row["state bytes"] / one < copies + 0.01


def test_every_cell_is_shown(answer):
    for name in answer["contenders"]:
        row = step_report.row_of(name, answer)
        assert tuple(row) == step_report.COLUMNS
        # AdamW's time may be so short that the cell says 0.00.
        ratio = step_report.ratio_to_ours(name, answer)
        assert float(row["time / ours"]) == pytest.approx(ratio, abs=0.006)
        assert ratio > 0
        assert float(row["first / ours"]) >= 0
    assert step_report.ratio_to_ours(contenders.OURS, answer) == 1.0
    row = dict(answer["contenders"][contenders.OURS])
    changed = {"contenders": {contenders.OURS: row | {"temporary bytes": None}}}
    shown = step_report.row_of(contenders.OURS, {**answer, **changed})
    assert shown["memory"] == step_report.NOT_MEASURED


def test_series_are_timed(tmp_path, backend, monkeypatch):
    monkeypatch.setattr(scaling, "asked", asked_here)
    plot = tmp_path / "scaling.png"
    content = ran(scaling, tmp_path, backend, "--rounds=1", "--plot", plot)
    assert plot.stat().st_size > 5_000
    times = content["backends"][backend]["seconds"]
    assert set(times) == {"width", "depth", "aspect", "stack"}
    for name, points in times.items():
        assert points.keys() == content["series"][name].keys()
        for row in points.values():
            assert all(0 < seconds < 10 for (seconds,) in row.values())


def test_training_steps_are_timed(tmp_path, backend, monkeypatch):
    """The built-in orthogonalizes two kernels and three biases; ours six kernels."""
    monkeypatch.setattr(training_overhead, "asked", asked_here)
    content = ran(training_overhead, tmp_path, backend)
    answer = content["backends"][backend]
    assert len(answer["seconds"]) == 4
    assert all(min(seconds) > 0 for seconds in answer["seconds"].values())
    width = content["options"]["width"]
    kernels = 2 * 4 * width**2
    assert list(answer["orthogonalized"].values()) == [
        0,
        0,
        kernels + 3 * width,
        kernels + 4 * width**2,
    ]
    name = contenders.BUILT_IN
    ratio = interleaving.median_ratio(answer["seconds"], name, training_overhead.PLAIN)
    assert training_overhead.share(name, answer) == pytest.approx(1 - 1 / ratio)


def test_products_are_timed_beside_newton_schulz(tmp_path, backend, monkeypatch):
    """Of a square matrix, and of a stack of one with a transposed one."""
    monkeypatch.setattr(newton_schulz_share, "asked", asked_here)
    content = ran(newton_schulz_share, tmp_path, backend)
    (answer,) = content["backends"].values()
    plans = answer["plans"]
    assert [row["words"] for row in plans] == [
        ["32 x 32", "1", "float32"],
        ["32 x 64", "2", "float32"],
    ]
    assert [row["matrices"] for row in plans] == [1, 2]
    for row in plans:
        assert len(row["seconds"]) == newton_schulz_share.QUICK["rounds"]
        assert all(0 < seconds < 10 for seconds in row["seconds of products"])


def test_a_share_is_of_the_same_round_and_counts_calls():
    """Twice 3 and once 4 seconds in the first round, of which 6 and 2 are products."""
    rows = [
        {"calls": 2, "seconds": [3.0, 30.0], "seconds of products": [3.0, 30.0]},
        {"calls": 1, "seconds": [4.0, 40.0], "seconds of products": [2.0, 20.0]},
    ]
    assert newton_schulz_share.share(rows) == pytest.approx(8 / 10)


def test_missing_backends_are_not_measured(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jax", None)
    for script in (
        optimizer_step,
        scaling,
        training_overhead,
        newton_schulz_share,
    ):
        assert script.main([QUICK, "--backend=jax"]) == 1
        assert "jax: not measured, it is not installed" in capsys.readouterr().out


def test_functions_take_turns():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = interleaving.interleaved(functions, rounds=2, turn=0.0)
    # Once each before, to see how long calls are.
    assert "".join(calls) == "abc" + "abc" + "bca"
    assert {len(turns) for turns in times.values()} == {2}


def test_ratios_are_of_the_same_round():
    """A machine that is ten times slower in one round changes nothing."""
    times = {"a": [2.0, 20.0, 2.2], "b": [1.0, 10.0, 1.0]}
    assert interleaving.median_ratio(times, "a", "b") == 2.0
    assert statistics.median(times["a"]) / statistics.median(times["b"]) != 2.0


def test_operations_are_counted():
    """By counting the multiplications of each product of a 3 x 5 matrix."""
    products = [(3, 5, 3), (3, 3, 3), (3, 3, 5)]
    wanted = sum(2 * m * k * n for m, k, n in products)
    quintic, cubic = [(1.0, 1.0, 1.0)], [(1.5, -0.5, 0.0)]
    for shape in ((3, 5), (5, 3)):
        assert step_flops.newton_schulz_flops([shape] * 2, quintic) == 2 * wanted
        assert step_flops.newton_schulz_flops([shape], cubic) == wanted - 2 * 3**3


@pytest.mark.parametrize(
    ("model", "matrices", "parameters"),
    # GPT-2 and ViT: layers * 12 * width^2. Llama: 30 * 576 * (2 * 576 + 2 * 192 +
    # 3 * 1536). ResNet-50: its published 25,557,032 less the stem's 9,408, the head's
    # 2,049,000 and 53,120 gains and shifts. Small: 18 * 41,984.
    [
        ("gpt2", 72, 84_934_656),
        ("llama", 210, 106_168_320),
        ("vit", 72, 21_233_664),
        ("resnet50", 52, 23_445_504),
        ("small", 126, 755_712),
    ],
)
def test_models_have_their_published_sizes(model, matrices, parameters):
    shapes = step_models.shapes_of(model)
    assert len(shapes) == matrices
    assert sum(fan_in * fan_out for fan_in, fan_out in shapes) == parameters


def test_too_many_layers_are_refused(capsys):
    with pytest.raises(SystemExit):
        optimizer_step.parsed(["--model=gpt2", "--layers=13"])
    assert "--layers must be 1 to 12" in capsys.readouterr().err


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="only Linux tells")
def test_temporary_memory_is_seen():
    """64 MiB that are freed before the end; pages are counted in batches."""
    size = 2**26
    risen = memory.resident_bytes(lambda: np.ones(size, "uint8").sum())
    assert 0.9 * size < risen < 1.3 * size


def test_versions_of_what_is_missing_are_none(monkeypatch):
    monkeypatch.setattr(machine, "PEERS", ("keras", "no-such-distribution"))
    found = machine.versions()
    assert found["keras"] == keras.__version__
    assert found["no-such-distribution"] is None
