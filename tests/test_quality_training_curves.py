"""The comparison of training: fair to both schedules, and able to find one worse."""

import keras
import numpy as np
import pytest
import training_curves
import training_curves_runs
from captures_models import digits_batches, digits_validation
from training_curves_report import breaches, spread
from training_curves_runs import Length, Task, one_curve

LENGTH = Length(steps=4, every=2)


def tiny():
    dense = keras.layers.Dense
    layers = [keras.layers.Flatten(), dense(16, "relu"), dense(10)]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


TASK = Task(tiny, digits_batches, digits_validation, rate=1e-2)


def test_runs_differ_in_nothing_but_the_schedule():
    """The same arguments give the same curve; another seed does not."""
    arguments = {"schedule": "jordan"}
    curve = one_curve(TASK, 0, LENGTH, arguments)
    assert len(curve) == 2
    assert one_curve(TASK, 0, LENGTH, arguments) == pytest.approx(curve, abs=1e-6)
    assert (
        np.abs(np.subtract(one_curve(TASK, 1, LENGTH, arguments), curve)).max() > 0.01
    )


def curves(default, jordan):
    """Final losses of three seeds each, after a first evaluation that is no matter."""
    return {
        "model": {
            name: np.stack([np.full(3, 9.0), np.array(final)], axis=1)
            for name, final in (("default", default), ("jordan", jordan))
        }
    }


def test_the_spread_of_jordans_is_what_is_allowed():
    """Of 1, 2, 3 it is 1: what exceeds a mean of 3 is a breach."""
    jordan = [1.0, 2.0, 3.0]
    assert spread(curves(jordan, jordan)["model"]["jordan"]) == pytest.approx(1.0)
    assert breaches(curves([2.9, 2.9, 3.1], jordan)) == []
    assert len(breaches(curves([2.9, 3.1, 3.1], jordan))) == 1
    assert len(breaches(curves([1.0, 1.0, np.nan], jordan))) == 1
    # A noisy default does not widen what it is allowed.
    assert len(breaches(curves([0.0, 0.0, 10.0], jordan))) == 1


def test_the_command_trains_every_seed(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(training_curves_runs.TASKS, "vit", TASK)
    path = tmp_path / "curves.png"
    sizes = ["--steps=4", "--every=2", "--seeds=2", "--models", "vit"]
    # Which of two is lower after four steps is chance; that there is an answer is not.
    assert training_curves.main([*sizes, f"--plot={path}"]) in (0, 1)
    assert path.stat().st_size > 10_000
    output = capsys.readouterr().out
    assert output.count("vit") >= 2
    assert "jordan" in output


@pytest.mark.parametrize("option", ["--seeds=1", "--steps=30", "--schedule=jordan"])
def test_options_that_compare_nothing_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        training_curves.main([option])
    assert option.split("=")[0] in capsys.readouterr().err
