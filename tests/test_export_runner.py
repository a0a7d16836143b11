"""StepRunner: what it takes, what it leaves alone, and that it needs no Keras."""

import os
import subprocess
import sys

import numpy as np
import pytest
from exported_steps import built, gpt, gradients_of

from keras_muon.export import StepRunner, optimizer_step, variable_values


def test_arrays_of_the_caller_are_never_written(rng, tmp_path):
    model = built(gpt(), learning_rate=0.02)
    parameters, state = variable_values(model)
    copies = {name: value.copy() for name, value in parameters.items()}
    folder = optimizer_step(model, tmp_path / "step")
    runner = StepRunner(folder, parameters, state, device="cpu", threads=1)
    first = runner.step(gradients_of(rng, parameters), 0.02)
    kept = {name: value.copy() for name, value in first.items()}
    runner.step(gradients_of(rng, parameters), 0.02)
    for name in parameters:
        np.testing.assert_array_equal(parameters[name], copies[name])
        np.testing.assert_array_equal(first[name], kept[name])
        assert not any(value.any() for value in state[name].values())


def test_values_come_back_in_the_order_given(rng, tmp_path):
    """Whoever zips them with a model's variables gets the right ones."""
    model = built(gpt(), learning_rate=0.02)
    parameters, state = variable_values(model)
    folder = optimizer_step(model, tmp_path / "step")
    turned = dict(reversed(parameters.items()))
    for given in (parameters, turned):
        runner = StepRunner(folder, given, state, device="cpu", threads=1)
        assert list(runner.step(gradients_of(rng, parameters), 0.02)) == list(given)
        assert list(runner.parameters) == list(runner.state) == list(given)
    buckets = [e.name for b in runner.manifest.buckets for e in b.variables]
    assert buckets not in (list(parameters), list(turned))


def test_a_runner_continues_another(rng, tmp_path):
    """With its parameters, state and number of steps; without the last it starts over.

    The number corrects the bias of AdamW's moments.
    """
    model = built(gpt(), learning_rate=0.02)
    parameters, state = variable_values(model)
    folder = optimizer_step(model, tmp_path / "step")
    gradients = [gradients_of(rng, parameters) for _ in range(4)]
    whole = StepRunner(folder, parameters, state, device="cpu", threads=1)
    for gradient in gradients[:2]:
        whole.step(gradient, 0.02)
    kept = whole.parameters, whole.state
    count = whole.iterations
    for gradient in gradients[2:]:
        whole.step(gradient, 0.02)
    ends = {}
    for iterations in (count, None):
        runner = StepRunner(
            folder, *kept, iterations=iterations, device="cpu", threads=1
        )
        for gradient in gradients[2:]:
            runner.step(gradient, 0.02)
        ends[iterations] = runner
    assert (ends[2].iterations, ends[None].iterations) == (4, 2)
    expected = whole.parameters
    for name, value in ends[2].parameters.items():
        np.testing.assert_array_equal(value, expected[name])
    forgotten = ends[None].parameters
    assert max(np.abs(forgotten[n] - expected[n]).max() for n in expected) > 1e-3


def test_wrong_numbers_of_steps_are_refused(tmp_path):
    model = built(gpt(), learning_rate=0.02)
    folder = optimizer_step(model, tmp_path / "step")
    values = variable_values(model)
    for wrong in (-1, 1.5, True, "3"):
        with pytest.raises(ValueError, match="`iterations` must be a whole number of"):
            StepRunner(folder, *values, iterations=wrong, device="cpu")
    with pytest.raises(ValueError, match=r"'fresh' starts at step 1.*iterations=3"):
        StepRunner(folder, values[0], "fresh", iterations=3, device="cpu")


def test_wrong_arrays_are_refused(rng, tmp_path):
    model = built(gpt(), learning_rate=0.02)
    parameters, state = variable_values(model)
    folder = optimizer_step(model, tmp_path / "step")
    name = next(iter(parameters))
    less = {key: value for key, value in parameters.items() if key != name}
    with pytest.raises(ValueError, match=rf"`parameters`.*missing: '{name}'"):
        StepRunner(folder, less, device="cpu")
    with pytest.raises(ValueError, match="unknown: 'other'"):
        StepRunner(folder, parameters | {"other": np.ones(1)}, device="cpu")
    with pytest.raises(ValueError, match=rf"`state` has no momentum of '{name}'"):
        StepRunner(folder, parameters, state | {name: {}}, device="cpu")
    with pytest.raises(TypeError, match=r"'fresh', or None; received 'zero'"):
        StepRunner(folder, parameters, "zero", device="cpu")
    runner = StepRunner(folder, parameters, device="cpu", threads=1)
    with pytest.raises(ValueError, match=rf"`gradients` of '{name}' must have shape"):
        runner.step(parameters | {name: np.ones(3)}, 0.02)
    wide = parameters[name].astype("float64")
    with pytest.raises(ValueError, match=rf"'{name}' must have dtype float32.*float64"):
        runner.step(parameters | {name: wide}, 0.02)
    with pytest.raises(ValueError, match=rf"`parameters` of '{name}' must have dtype"):
        StepRunner(folder, parameters | {name: wide}, device="cpu")
    with pytest.raises(TypeError, match=rf"`gradients` of '{name}' cannot be read"):
        runner.step(parameters | {name: [[1.0], [1.0, 2.0]]}, 0.02)
    with pytest.raises(TypeError, match="`learning_rate` must be a number"):
        runner.step(parameters, None)
    assert runner.iterations == 0
    runner.step(parameters | {name: parameters[name].astype("float16")}, 0.02)
    assert runner.iterations == 1


WITHOUT_KERAS = """
import sys
import numpy as np
from keras_muon.export import StepRunner
values = dict(np.load(sys.argv[2]))
runner = StepRunner(sys.argv[1], values, device="cpu", threads=1)
runner.step(values, 0.02)
print("keras" in sys.modules, runner.iterations)
"""


def test_the_runner_needs_no_keras(tmp_path):
    model = built(gpt(), learning_rate=0.02)
    parameters, _ = variable_values(model)
    np.savez(tmp_path / "values.npz", **parameters)
    folder = optimizer_step(model, tmp_path / "step")
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERAS, folder, tmp_path / "values.npz"],
        env={key: v for key, v in os.environ.items() if key != "KERAS_BACKEND"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == ["False", "1"]
