"""Muon beside other optimizers and models, in wrappers, and compiled again."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

X = np.random.default_rng(1).standard_normal((8, 8)).astype("float32")
Y = np.random.default_rng(2).standard_normal((8, 8)).astype("float32")


def new_model(name="model", seed=5):
    """Layers of equal shapes: values of one would fit another."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, activation="tanh", name="first"),
            keras.layers.Dense(8, activation="tanh", name="second"),
            keras.layers.Dense(8, name="head"),
        ],
        name=name,
    )


def compiled(model, optimizer):
    model.compile(optimizer, "mse", jit_compile=keras.backend.backend() == "jax")
    return model


def fitted(model, epochs=1, **arguments):
    model.fit(X, Y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, **arguments)
    return model


def weights(model):
    return {v.path: keras.ops.convert_to_numpy(v).copy() for v in model.weights}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def assert_refused(model, match="optimizer", by_keras=False):
    """`fit` raises before anything moves."""
    before = weights(model)
    with pytest.raises((ValueError, KeyError), match=match):
        fitted(model)
    # On JAX Keras drops a model's values if a step raises, with every optimizer.
    if not (by_keras and keras.backend.backend() == "jax"):
        assert_equal(weights(model), before)


def steps(optimizer):
    return int(keras.ops.convert_to_numpy(optimizer.iterations))


@pytest.fixture(scope="module")
def alone():
    """The weights after two epochs of a model that nothing disturbs."""
    return weights(fitted(compiled(new_model(), Muon(0.05)), epochs=2))


# Several optimizers under one roof


def several():
    """Muon by default, and SGD for one layer."""
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            Muon(0.05), {".*first/.*": keras.optimizers.SGD(0.1)}
        )
    )


def muon_of(optimizer):
    return next(part for part in optimizer.optimizers if isinstance(part, Muon))


def test_a_map_of_optimizers():
    """Muon routes its own share; the rest moves by the other optimizer's rule."""
    model = compiled(new_model(), several())
    fitted(model)
    paths = [route.path for route in muon_of(model.optimizer).routes]
    rules = [route.rule for route in muon_of(model.optimizer).routes]
    assert not [path for path in paths if "first" in path]
    assert rules == ["muon", "adamw", "adamw", "adamw"]
    assert steps(muon_of(model.optimizer)) == 2


def test_a_map_of_optimizers_in_a_file(tmp_path):
    """Saved and loaded, both parts continue as if never stopped."""
    model = fitted(compiled(new_model(), several()))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [r.rule for r in muon_of(loaded.optimizer).routes] == [
        r.rule for r in muon_of(model.optimizer).routes
    ]
    pairs = zip(fitted(loaded).get_weights(), fitted(model).get_weights(), strict=True)
    for now, expected in pairs:
        np.testing.assert_array_equal(now, expected)


def test_a_loss_scale_by_hand(tmp_path):
    """Wrapped by LossScaleOptimizer and saved: scale, routes and state come back."""
    wrapped = keras.optimizers.LossScaleOptimizer(Muon(0.05), initial_scale=8.0)
    model = fitted(compiled(new_model(), wrapped))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inner = loaded.optimizer.inner_optimizer
    assert [r.rule for r in inner.routes] == [
        r.rule for r in wrapped.inner_optimizer.routes
    ]
    pairs = zip(fitted(loaded).get_weights(), fitted(model).get_weights(), strict=True)
    for now, expected in pairs:
        np.testing.assert_array_equal(now, expected)


# Several models

# JAX hands over values, which would fit; the others look each variable up.
ANOTHER_MODEL = {
    "jax": r"'model/first/kernel'.*model 'other'.*Muon\.for_model",
    "tensorflow": "(?s)other/first/kernel.*optimizer",
    "torch": "(?s)other/first/kernel.*optimizer",
}


def test_models_in_turns_do_not_disturb_each_other(alone):
    """Two models of equal layers and names, trained in turns in one process."""
    models = [compiled(new_model(seed=seed), Muon(0.05)) for seed in (5, 6)]
    for _ in range(2):
        for model in models:
            fitted(model)
    assert_equal(weights(models[0]), alone)
    gap = alone["model/first/kernel"] - weights(models[1])["model/first/kernel"]
    assert np.abs(gap).max() > 0.1


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "loss scale"])
def test_an_optimizer_of_another_model_is_refused(wrapped, alone):
    """Its state belongs to the first, which can train on as if nothing had happened.

    On JAX equal shapes would hide that.
    """
    first = fitted(compiled(new_model(), Muon(0.05)))
    optimizer = first.optimizer
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    other = compiled(new_model("other", seed=6), optimizer)
    assert_refused(other, match=ANOTHER_MODEL[keras.backend.backend()])
    assert_equal(weights(fitted(first)), alone)


def test_a_model_inside_another():
    """The inner model's own optimizer and the outer one's know their variables."""
    inner = fitted(compiled(new_model("inner"), Muon(0.05)))
    inputs = keras.Input((8,))
    outer = keras.Model(inputs, keras.layers.Dense(8, name="top")(inner(inputs)))
    fitted(compiled(outer, Muon(0.05)))
    fitted(inner)
    assert (steps(inner.optimizer), steps(outer.optimizer)) == (4, 2)
    # The inner model's head is a hidden matrix of the outer one.
    own, among = (
        [r.rule for r in m.optimizer.routes if "head/kernel" in r.path]
        for m in (inner, outer)
    )
    assert (own, among) == (["adamw"], ["muon"])


# Compiled again


def test_compiling_again_with_the_same_optimizer(alone):
    """Its state stays: two epochs with a compilation between them are two epochs."""
    model = fitted(compiled(new_model(), Muon(0.05)))
    fitted(compiled(model, model.optimizer))
    assert steps(model.optimizer) == 4
    assert_equal(weights(model), alone)


def test_compiling_again_with_a_new_optimizer(alone):
    """Fresh state: the weights go elsewhere, the routes stay."""
    model = fitted(compiled(new_model(), Muon(0.05)))
    first = model.optimizer
    fitted(compiled(model, Muon.from_config(first.get_config())))
    assert (steps(first), steps(model.optimizer)) == (2, 2)
    assert model.optimizer.routes == first.routes
    gaps = [np.abs(v - alone[path]).max() for path, v in weights(model).items()]
    assert min(gaps) > 0.01


def unfrozen(optimizer=None):
    """A model trained with a frozen layer, compiled again with the layer free."""
    model = new_model()
    model.get_layer("second").trainable = False
    fitted(compiled(model, Muon(0.05)))
    assert [r.path for r in model.optimizer.routes if "second" in r.path] == []
    model.get_layer("second").trainable = True
    return compiled(model, optimizer or model.optimizer)


def test_unfreezing_with_a_new_optimizer():
    model = unfrozen(Muon(0.05))
    before = weights(model)
    fitted(model)
    rules = [r.rule for r in model.optimizer.routes if "second/kernel" in r.path]
    assert rules == ["muon"]
    for path, value in weights(model).items():
        assert np.abs(value - before[path]).max() > 0.01, path


def test_unfreezing_with_the_old_optimizer():
    """It has no state for the layer: an error that says so, and nothing moves."""
    assert_refused(unfrozen(), by_keras=True)
