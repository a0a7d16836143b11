"""An exported optimizer moves arrays as Keras moves the model, without Keras."""

import functools
import json

import keras
import numpy as np
import pytest
from exported_steps import built, gpt, gradients_of

from keras_muon import MatrixView, Muon
from keras_muon.export import StepRunner, optimizer_step, variable_values

STEPS = 50

# Largest difference seen after 50 steps of float32: 4e-7. Parameters move by 0.1.
TOLERANCE = 2e-5


def apply(model, gradients):
    tensors = [keras.ops.convert_to_tensor(g) for g in gradients.values()]
    model.optimizer.apply(tensors, model.trainable_variables)


def quick_apply(model):
    """The same for one model, on TensorFlow in a graph: eagerly, it takes 0.1 s."""
    apply_here = functools.partial(apply, model)
    if keras.backend.backend() != "tensorflow":
        return apply_here
    import tensorflow as tf

    return tf.function(apply_here, autograph=False)


def assert_equal_steps(rng, model, runner, rates, **given):
    """Keras and the runner stay together, and move."""
    before, _ = variable_values(model)
    move = quick_apply(model)
    for rate in rates:
        gradients = gradients_of(rng, before)
        if isinstance(rate, float):
            model.optimizer.learning_rate = rate
        new = runner.step(gradients, float(model.optimizer.learning_rate), **given)
        move(gradients)
    after, state = variable_values(model)
    assert new.keys() == after.keys()
    for name, value in after.items():
        assert new[name].dtype == value.dtype
        np.testing.assert_allclose(new[name], value, rtol=0, atol=TOLERANCE)
        for kind, kept in state[name].items():
            kept_here = runner.state[name][kind]
            np.testing.assert_allclose(kept_here, kept, rtol=1e-5, atol=1e-5)
    moved = [np.abs(after[name] - before[name]).max() for name in before]
    assert min(moved) > 100 * TOLERANCE


SETTINGS = {
    "default": {},
    "no_decay": {"weight_decay": None},
    "own_decays": {"weight_decay": 0.3, "adam_weight_decay": 0.01},
    "own_rate": {"adam_learning_rate": 0.03},
    "original": {"scaling": "original", "nesterov": False, "momentum": 0.95},
    "mup": {"scaling": "mup", "schedule": "polar_express", "ns_steps": 6},
    "moments": {"adam_beta_1": 0.8, "adam_beta_2": 0.99, "adam_epsilon": 1e-3},
    "in_stacks": {"batched": True},
    "one_by_one": {"batched": False},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_50_steps_equal_those_of_keras(rng, tmp_path, name):
    """Whatever the optimizer's settings, and while the rate changes."""
    model = built(gpt(), learning_rate=0.02, **SETTINGS[name])
    parameters, _ = variable_values(model)
    folder = optimizer_step(model, tmp_path / "step")
    runner = StepRunner(folder, parameters, device="cpu", threads=1)
    rates = np.linspace(0.02, 0.005, STEPS).tolist()
    assert_equal_steps(rng, model, runner, rates)
    assert runner.iterations == STEPS


def test_it_goes_on_where_the_optimizer_is(rng, tmp_path):
    """Export in mid-training: momentum, second moments and the step count go along."""
    model = built(gpt(), learning_rate=0.02)
    for _ in range(5):
        apply(model, gradients_of(rng, variable_values(model)[0]))
    parameters, state = variable_values(model)
    folder = optimizer_step(model.optimizer, tmp_path / "step")
    with pytest.raises(ValueError, match="after 5 steps, so it has a state"):
        StepRunner(folder, parameters, device="cpu")
    assert StepRunner(folder, parameters, "fresh", device="cpu").iterations == 0
    runner = StepRunner(folder, parameters, state, device="cpu", threads=1)
    assert_equal_steps(rng, model, runner, [0.02] * 20)
    assert runner.iterations == 25


def test_excluded_variables_do_not_decay(rng, tmp_path):
    model = gpt()
    model.compile(Muon.for_model(model, learning_rate=0.02, weight_decay=2.0), "mse")
    model.optimizer.exclude_from_weight_decay(var_names=["dense", "bias"])
    model.optimizer.build(model.trainable_variables)
    parameters, _ = variable_values(model)
    folder = optimizer_step(model, tmp_path / "step")
    runner = StepRunner(folder, parameters, device="cpu", threads=1)
    assert {b.weight_decay for b in runner.manifest.buckets} == {0.0, 2.0}
    assert_equal_steps(rng, model, runner, [0.02] * 20)


def test_frozen_variables_are_left_out(rng, tmp_path):
    model = built(gpt(), learning_rate=0.02)
    model.layers[1].trainable = False
    parameters, _ = variable_values(model)
    assert len(parameters) == len(model.trainable_variables)
    folder = optimizer_step(model, tmp_path / "step")
    runner = StepRunner(folder, parameters, device="cpu", threads=1)
    assert_equal_steps(rng, model, runner, [0.02] * 5)


def test_equal_paths_are_numbered(rng, tmp_path):
    """Two variables of one path keep their own values."""
    variables = [
        keras.Variable(rng.standard_normal((6, 4)).astype("float32"), name="kernel")
        for _ in range(3)
    ]
    optimizer = Muon(0.02, routes={"kernel": "muon"})
    optimizer.build(variables)
    parameters, _ = variable_values(optimizer)
    assert list(parameters) == ["kernel", "kernel 1", "kernel 2"]
    runner = StepRunner(
        optimizer_step(optimizer, tmp_path / "step"), parameters, device="cpu"
    )
    gradients = gradients_of(rng, parameters)
    new = runner.step(gradients, 0.02)
    tensors = [keras.ops.convert_to_tensor(g) for g in gradients.values()]
    optimizer.apply(tensors, variables)
    for name, variable in zip(new, variables, strict=True):
        np.testing.assert_allclose(new[name], variable.numpy(), rtol=0, atol=TOLERANCE)


def test_views_with_batches_and_factors(rng, tmp_path):
    """Experts, grouped convolutions, an out axis in front, and a scalar."""
    views = {
        "experts": MatrixView((4, 6, 8), (1,), (2,), (0,)),
        "groups": MatrixView((3, 3, 2, 8), (0, 1, 2), (4,), (3,), (3, 3, 2, 4, 2)),
        "turned": MatrixView((8, 2, 3), (1, 2), (0,)),
    }
    shapes = {name: view.shape for name, view in views.items()} | {"scale": ()}
    variables = [
        keras.Variable(rng.standard_normal(shape).astype("float32"), name=name)
        for name, shape in shapes.items()
    ]
    optimizer = Muon(0.02, routes=views | {"scale": "adamw"})
    optimizer.build(variables)
    parameters, _ = variable_values(optimizer)
    folder = optimizer_step(optimizer, tmp_path / "step")
    # The four experts and the turned kernel share one run.
    assert sorted(path.stem for path in folder.glob("*.onnx")) == [
        "adamw_scalar_float32",
        "muon_4x18x2_float32",
        "muon_5x6x8_float32",
    ]
    runner = StepRunner(folder, parameters, device="cpu", threads=1)
    for _ in range(5):
        gradients = gradients_of(rng, parameters)
        new = runner.step(gradients, 0.02)
        tensors = [keras.ops.convert_to_tensor(g) for g in gradients.values()]
        optimizer.apply(tensors, variables)
    for variable in variables:
        expected = variable.numpy()
        np.testing.assert_allclose(new[variable.path], expected, 0, TOLERANCE)


def test_a_schedule_stays_with_the_caller(rng, tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.02, 100)
    model = built(gpt(), learning_rate=schedule)
    parameters, _ = variable_values(model)
    folder = optimizer_step(model, tmp_path / "step")
    runner = StepRunner(folder, parameters, device="cpu", threads=1)
    assert_equal_steps(rng, model, runner, [None] * 10)


def test_rates_of_adamw(rng, tmp_path):
    """A ratio follows, a constant stays, a schedule of its own must be given."""
    schedule = keras.optimizers.schedules.CosineDecay(0.02, 100)
    cases = [
        ({"learning_rate": 0.02, "adam_learning_rate": 0.01}, (0.5, None)),
        ({"learning_rate": schedule, "adam_learning_rate": 0.01}, (None, 0.01)),
        ({"learning_rate": 0.02, "adam_learning_rate": schedule}, (None, None)),
    ]
    for number, (arguments, expected) in enumerate(cases):
        model = built(gpt(), **arguments)
        parameters, _ = variable_values(model)
        folder = optimizer_step(model, tmp_path / str(number))
        runner = StepRunner(folder, parameters, device="cpu", threads=1)
        manifest = runner.manifest
        assert (manifest.adam_ratio, manifest.adam_learning_rate) == expected
        own = {"adam_learning_rate": 0.02} if expected == (None, None) else {}
        wrong = {} if own else {"adam_learning_rate": 0.02}
        with pytest.raises(ValueError, match="adam_learning_rate"):
            runner.step(gradients_of(rng, parameters), 0.02, **wrong)
        assert_equal_steps(rng, model, runner, [None], **own)


def test_the_manifest_says_where_everything_is(tmp_path):
    model = built(gpt(), learning_rate=0.02, weight_decay=0.1)
    folder = optimizer_step(model, tmp_path / "step")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == "keras_muon.optimizer_step"
    assert (manifest["iterations"], manifest["adam_ratio"]) == (0, 1.0)
    assert manifest["learning_rate"] == pytest.approx(0.02)
    listed = [v for bucket in manifest["buckets"] for v in bucket["variables"]]
    names = [entry["name"] for entry in listed]
    assert sorted(names) == sorted(v.path for v in model.trainable_variables)
    routes = {route.path: route for route in model.optimizer.routes}
    for entry in listed:
        route = routes[entry["name"]]
        assert tuple(entry["shape"]) == route.shape
        if route.rule == "muon":
            assert MatrixView.from_json(entry["view"]) == route.view
    graphs = {bucket["graph"] for bucket in manifest["buckets"]}
    assert graphs | {"manifest.json"} == {path.name for path in folder.iterdir()}
