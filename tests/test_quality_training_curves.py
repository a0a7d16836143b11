"""The comparison of training: fair to both schedules, and able to find one worse."""

import json

import keras
import numpy as np
import pytest
import training_curves
import training_curves_runs
from captures_models import digits_batches, digits_validation
from training_curves_report import breaches, spread
from training_curves_runs import TASKS, Length, Run, Task, losses_of, one_run

from keras_muon import Muon

pytestmark = pytest.mark.usefixtures("quick_compilation")

LENGTH = Length(steps=4, every=2)


def tiny():
    dense = keras.layers.Dense
    layers = [keras.layers.Flatten(), dense(16, "relu"), dense(10)]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


TASK = Task(tiny, digits_batches, digits_validation, rate=1e-2)


def test_runs_differ_in_nothing_but_the_schedule():
    """The same arguments give the same curve; another seed does not."""
    arguments = {"schedule": "jordan"}
    curve = one_run(TASK, 0, LENGTH, arguments).losses
    assert len(curve) == 2
    again = one_run(TASK, 0, LENGTH, arguments).losses
    assert again == pytest.approx(curve, abs=1e-6)
    other = one_run(TASK, 1, LENGTH, arguments).losses
    assert np.abs(np.subtract(other, curve)).max() > 1e-3


def test_a_run_tells_which_matrices_were_compressed():
    """The hidden kernel of 64 x 16 is too small for that; one of 384 x 400 is not."""
    run = one_run(TASK, 0, Length(1, 1), {})
    assert (run.matrices, run.compressed) == (1, 0)
    dense = keras.layers.Dense

    def wide():
        layers = [keras.layers.Flatten(), dense(384), dense(400), dense(10)]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers])

    task = Task(wide, digits_batches, digits_validation, rate=1e-3)
    run = one_run(task, 0, Length(1, 1), {})
    assert (run.matrices, run.compressed) == (2, 1)
    assert one_run(task, 0, Length(1, 1), {"schedule": "jordan"}).compressed == 0


@pytest.mark.parametrize("name", ["gpt384", "convnet384", "vit384", "gpt768"])
def test_most_matrices_of_the_wide_models_are_compressed(name):
    model = TASKS[name].build()
    optimizer = Muon.for_model(model)
    optimizer.build(model.trainable_variables)
    counts = {True: 0, False: 0}
    for count, plan in optimizer.plans:
        counts[plan.leading is not None] += count
    assert counts[True] > 2 * counts[False]


def runs(default, jordan):
    """Of three seeds each; the first evaluation is no matter."""
    methods = (("default", default), ("jordan", jordan))
    return {
        "model": {
            name: [Run((9.0, loss), 1, 0, ("float32",)) for loss in final]
            for name, final in methods
        }
    }


def test_the_spread_of_jordans_is_what_is_allowed():
    """Of 1, 2, 3 it is 1: what exceeds a mean of 3 is a breach."""
    jordan = [1.0, 2.0, 3.0]
    losses = losses_of(runs(jordan, jordan)["model"]["jordan"])
    assert spread(losses) == pytest.approx(1.0)
    assert breaches(runs([2.9, 2.9, 3.1], jordan)) == []
    assert len(breaches(runs([2.9, 3.1, 3.1], jordan))) == 1
    assert len(breaches(runs([1.0, 1.0, np.nan], jordan))) == 1
    # A noisy default does not widen what it is allowed.
    assert len(breaches(runs([0.0, 0.0, 10.0], jordan))) == 1


def test_the_command_trains_every_seed(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(training_curves_runs.TASKS, "vit", TASK)
    path, numbers = tmp_path / "curves.png", tmp_path / "curves.json"
    sizes = ["--steps=4", "--every=2", "--seeds=2", "--models", "vit"]
    # Which of two is lower after four steps is chance; that there is an answer is not.
    where = [f"--plot={path}", f"--json={numbers}"]
    assert training_curves.main([*sizes, *where]) in (0, 1)
    assert path.stat().st_size > 10_000
    found = json.loads(numbers.read_text())["runs"]["vit"]
    assert [len(of_seeds) for of_seeds in found.values()] == [2, 2]
    output = capsys.readouterr().out
    assert output.count("vit") >= 2
    assert "jordan" in output
    assert "0 of 1" in output


@pytest.mark.parametrize(
    "option", ["--seeds=1", "--steps=30", "--schedule=jordan", "--json=no/folder"]
)
def test_options_that_compare_nothing_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        training_curves.main([option])
    assert option.split("=")[0] in capsys.readouterr().err
