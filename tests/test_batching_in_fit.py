"""Under `model.fit` the hooks of the running backend update whole buckets at once."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

# Largest error seen on any backend: 1.1e-7, and none at all where every operation runs
# by itself. Every variable moves by 2.8e-2 or more.
TOLERANCE = 5e-6


@pytest.fixture
def calls(monkeypatch):
    """What `fit` calls: (name of the method, its arguments), in order."""
    seen = []

    def watch(name):
        original = getattr(Muon, name)

        def watched(self, *arguments):
            seen.append((name, arguments))
            return original(self, *arguments)

        monkeypatch.setattr(Muon, name, watched)

    for name in (
        "_backend_update_step",
        "_distributed_tf_update_step",
        "update_bucket",
        "update_step",
    ):
        watch(name)
    return seen


def attention_model():
    """Five matrices of 16 x 16: four of attention, of three axes, and one of two.

    Attention has no biases here: the true gradient of a key's bias is zero, and AdamW
    would turn the rounding error in its place into a full step.
    """
    keras.utils.set_random_seed(7)
    inputs = keras.Input((4, 16))
    attention = keras.layers.MultiHeadAttention(2, 8, use_bias=False)
    hidden = keras.layers.Dense(16, activation="relu")(attention(inputs, inputs))
    outputs = keras.layers.Dense(3)(keras.ops.mean(hidden, axis=1))
    return keras.Model(inputs, outputs)


def fitted(optimizer):
    """The model after two epochs of four batches."""
    model = attention_model()
    model.compile(optimizer=optimizer, loss="mse")
    rng = np.random.default_rng(11)
    data = rng.normal(size=(16, 4, 16)), rng.normal(size=(16, 3))
    model.fit(*data, batch_size=4, epochs=2, shuffle=False, verbose=0)
    return model


def test_fit_updates_whole_buckets_through_the_hook(calls, backend):
    """The hook is called; each time, buckets cover every variable once."""
    model = fitted(Muon(0.01))
    names = [name for name, _ in calls]
    hook = {"tensorflow": "_distributed_tf_update_step"}
    times = names.count(hook.get(backend, "_backend_update_step"))
    buckets = [arguments[0] for name, arguments in calls if name == "update_bucket"]
    updated = sorted(index for bucket in buckets for index in bucket)
    everything = [*range(len(model.trainable_variables))]
    assert times > 0
    assert updated == sorted(everything * times)
    assert "update_step" not in names
    shapes = [model.trainable_variables[index].shape for index in max(buckets, key=len)]
    assert sorted(len(shape) for shape in shapes) == [2, 3, 3, 3, 3]


def test_fit_without_stacks_updates_one_by_one(calls):
    """`batched=False` reaches the same hook with buckets of one."""
    fitted(Muon(0.01, batched=False))
    assert {len(a[0]) for n, a in calls if n == "update_bucket"} == {1}


def test_fit_ends_at_the_same_weights():
    """Through gradients, compilation and hooks, stacks change nothing."""
    before = attention_model().get_weights()
    alone = fitted(Muon(0.01, batched=False)).get_weights()
    together = fitted(Muon(0.01, batched=True)).get_weights()
    wrong = [np.abs(a - b).max() for a, b in zip(together, alone, strict=True)]
    moved = [np.abs(a - b).max() for a, b in zip(before, alone, strict=True)]
    assert max(wrong) < TOLERANCE < 100 * TOLERANCE < min(moved)
