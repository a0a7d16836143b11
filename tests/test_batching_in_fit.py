"""Under `model.fit` the hooks of the running backend update whole buckets at once."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

# Largest error seen on any backend: 1.1e-7, and none at all where every operation runs
# by itself. Every variable moves by 2.8e-2 or more.
TOLERANCE = 5e-6


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


WATCHED = (
    "_backend_update_step",
    "_distributed_tf_update_step",
    "update_bucket",
    "update_step",
)


def fitted(batched):
    """A model after two epochs of four batches, and the methods that `fit` called."""
    model = attention_model()
    model.compile(optimizer=Muon(0.01, batched=batched), loss="mse")
    rng = np.random.default_rng(11)
    data = rng.normal(size=(16, 4, 16)), rng.normal(size=(16, 3))
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        for name in WATCHED:
            patch.setattr(Muon, name, watched(name, calls))
        model.fit(*data, batch_size=4, epochs=2, shuffle=False, verbose=0)
    return model, calls


def watched(name, calls):
    original = getattr(Muon, name)

    def method(self, *arguments):
        calls.append((name, arguments))
        return original(self, *arguments)

    return method


@pytest.fixture(scope="module")
def together():
    return fitted("auto")


@pytest.fixture(scope="module")
def alone():
    return fitted(False)


def buckets(calls):
    return [arguments[0] for name, arguments in calls if name == "update_bucket"]


def test_fit_updates_buckets_through_the_hook(together, backend):
    """The hook of the backend is called; buckets cover each variable once per call."""
    model, calls = together
    names = [name for name, _ in calls]
    hook = {"tensorflow": "_distributed_tf_update_step"}
    times = names.count(hook.get(backend, "_backend_update_step"))
    updated = sorted(index for bucket in buckets(calls) for index in bucket)
    everything = [*range(len(model.trainable_variables))]
    assert times > 0
    assert updated == sorted(everything * times)
    assert "update_step" not in names


def test_one_call_updates_kernels_of_two_and_three_axes(together):
    """All five matrices of one shape go together."""
    model, calls = together
    largest = max(buckets(calls), key=len)
    ranks = [len(model.trainable_variables[index].shape) for index in largest]
    assert sorted(ranks) == [2, 3, 3, 3, 3]


def test_fit_without_stacks_updates_one_by_one(alone):
    """`batched=False` reaches the same hook with buckets of one."""
    _, calls = alone
    assert {len(bucket) for bucket in buckets(calls)} == {1}


def test_fit_ends_at_the_same_weights(together, alone):
    """Through gradients, compilation and hooks, stacks change nothing."""
    before = attention_model().get_weights()
    one, other = together[0].get_weights(), alone[0].get_weights()
    wrong = [np.abs(a - b).max() for a, b in zip(one, other, strict=True)]
    moved = [np.abs(a - b).max() for a, b in zip(one, before, strict=True)]
    assert max(wrong) < TOLERANCE < 100 * TOLERANCE < min(moved)
