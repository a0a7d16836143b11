"""Routes outlive copies of the model, frozen layers and LoRA; strangers are refused."""

import copy
import json
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_muon import Muon

X = np.linspace(-1, 1, 32, dtype="float32").reshape(4, 8)
Y = np.ones((4, 4), "float32")
# Against what the layers say, so that a table that was derived anew is seen.
AGAINST = {
    ".*first/kernel": "adamw",
    ".*head/kernel": {"in_axes": [0], "out_axes": [1]},
}
RULES = ["adamw", "adamw", "muon", "adamw", "muon", "adamw"]


def new_model():
    inputs = keras.Input((8,))
    x = keras.layers.Dense(8, activation="tanh", name="first")(inputs)
    x = keras.layers.Dense(8, activation="tanh", name="second")(x)
    return keras.Model(inputs, keras.layers.Dense(4, name="head")(x), name="model")


def compiled(model, optimizer):
    model.compile(optimizer, "mse", run_eagerly=True)
    return model


def fitted(model):
    model.fit(X, Y, verbose=0)
    return model


def rules(optimizer):
    return [route.rule for route in optimizer.routes]


@pytest.fixture(scope="module")
def against():
    model = fitted(compiled(new_model(), Muon(routes=AGAINST)))
    assert rules(model.optimizer) == RULES
    return model


def saved_and_loaded(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


COPIES = {
    "keras": saved_and_loaded,
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, _: copy.deepcopy(model),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_of_a_compiled_model(how, against, tmp_path):
    """The rules travel with the model, and training of the copy uses them."""
    again = COPIES[how](against, tmp_path)
    assert again.optimizer is not against.optimizer
    assert rules(again.optimizer) == RULES
    before = int(again.optimizer.iterations)
    fitted(again)
    assert rules(again.optimizer) == RULES
    assert int(again.optimizer.iterations) == before + 1
    assert int(against.optimizer.iterations) == before


def test_a_clone_of_the_model(against):
    """`clone_model` copies no optimizer; its config fits the clone by names."""
    clone = keras.models.clone_model(against)
    compiled(clone, Muon.from_config(against.optimizer.get_config()))
    assert rules(fitted(clone).optimizer) == RULES


@pytest.mark.parametrize("build", [False, True], ids=["unbuilt", "built"])
def test_copies_of_the_optimizer_alone(build):
    """A table of routes is plain data: deepcopy and from_config keep it."""
    model = new_model()
    optimizer = Muon.for_model(model, routes=AGAINST)
    if build:
        optimizer.build(model.trainable_variables)
    again = Muon.from_config(copy.deepcopy(optimizer.get_config()))
    again.build(model.trainable_variables)
    assert rules(again) == RULES
    assert (
        again.get_config()["routes"]
        == Muon.from_config(again.get_config()).get_config()["routes"]
    )


def test_layers_frozen_after_for_model():
    """What is left keeps its rule; the table still has the frozen ones."""
    model = new_model()
    optimizer = Muon.for_model(model, routes=AGAINST)
    model.get_layer("second").trainable = False
    frozen = model.get_layer("second").get_weights()
    fitted(compiled(model, optimizer))
    assert rules(optimizer) == [RULES[i] for i in (0, 1, 4, 5)]
    for now, then in zip(model.get_layer("second").get_weights(), frozen, strict=True):
        np.testing.assert_array_equal(now, then)


def lora_rules(optimizer):
    return {
        route.path.rpartition("second/")[2]: route.rule
        for route in optimizer.routes
        if "second/" in route.path
    }


def test_lora_after_for_model():
    """Factors that came after the table are routed by their layer."""
    model = new_model()
    optimizer = Muon.for_model(model)
    model.get_layer("second").enable_lora(2)
    fitted(compiled(model, optimizer))
    assert lora_rules(optimizer) == {
        "lora_kernel_a": "adamw",
        "lora_kernel_b": "adamw",
        "bias": "adamw",
    }
    assert [r.rule for r in optimizer.routes if "first/kernel" in r.path] == ["muon"]


def with_lora():
    """A trained model whose second layer was given factors since."""
    model = fitted(compiled(new_model(), Muon()))
    model.get_layer("second").enable_lora(2)
    return model


def test_lora_after_training_with_a_new_optimizer():
    """The way that Keras documents: compile again."""
    model = with_lora()
    kernel = keras.ops.convert_to_numpy(model.get_layer("second")._kernel).copy()
    fitted(compiled(model, Muon()))
    assert lora_rules(model.optimizer).keys() == {
        "lora_kernel_a",
        "lora_kernel_b",
        "bias",
    }
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model.get_layer("second")._kernel), kernel
    )


def test_lora_after_training_with_the_old_optimizer():
    """It has no state for the factors: an error, never a wrong step."""
    model = with_lora()
    compiled(model, model.optimizer)
    before = [weight.copy() for weight in model.get_weights()]
    with pytest.raises((KeyError, ValueError), match=r"optimizer"):
        fitted(model)
    # On JAX Keras drops a model's values if a step raises, with every optimizer.
    if keras.backend.backend() != "jax":
        for now, then in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(now, then)


def test_another_model_under_the_same_names(against):
    """Routes match by name and shape, so those of an equal model are taken."""
    optimizer = Muon(routes=against.optimizer.routes)
    other = fitted(compiled(new_model(), optimizer))
    assert rules(other.optimizer) == RULES


def test_another_model_with_other_shapes(against):
    """A route with the right name and another shape is refused with both shapes."""
    inputs = keras.Input((8,))
    x = keras.layers.Dense(16, name="first")(inputs)
    other = keras.Model(inputs, keras.layers.Dense(4, name="head")(x), name="model")
    compiled(other, Muon(routes=against.optimizer.routes))
    with pytest.raises(ValueError, match=r"first/kernel.*\(8, 8\).*\(8, 16\)"):
        other.optimizer.build(other.trainable_variables)


def test_another_model_with_other_names(against):
    """And where no name is known the message says whose routes these are."""
    inputs = keras.Input((8,))
    other = keras.Model(inputs, keras.layers.Dense(4, name="only")(inputs), name="o")
    compiled(other, Muon(routes=against.optimizer.routes))
    with pytest.raises(ValueError, match=r"another model.*Muon\.for_model"):
        other.optimizer.build(other.trainable_variables)


STRANGER = """
import json
import sys

import keras

path, config = sys.argv[1], json.loads(sys.argv[2])
assert "keras_muon" not in sys.modules
try:
    keras.saving.load_model(path)
except TypeError as error:
    assert "keras_muon" in str(error), error
else:
    raise AssertionError("loaded without keras_muon")
for read in (keras.optimizers.deserialize, keras.optimizers.get):
    try:
        found = read(config)
    except (TypeError, ValueError) as error:
        print(type(error).__name__)
    else:
        raise AssertionError(f"{read.__name__} returned {found}")
assert keras.saving.load_model(path, compile=False).count_params() > 0
"""


def test_a_process_without_keras_muon_refuses_the_file(against, tmp_path):
    """The error names the package; Keras' own Muon does not step in for ours."""
    against.save(tmp_path / "model.keras")
    config = json.dumps(keras.optimizers.serialize(against.optimizer))
    path = tmp_path / "model.keras"
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STRANGER, path, config],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert len(process.stdout.split()) == 2
