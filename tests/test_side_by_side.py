"""Large matrices are updated side by side on torch, and nothing else changes."""

import keras
import numpy as np
import pytest

from keras_muon import MatrixView, Muon, matrix_optimizer
from keras_muon import side_by_side as sides

pytestmark = [
    pytest.mark.usefixtures("four_threads"),
    pytest.mark.skipif(
        keras.backend.backend() != "torch", reason="only torch computes one at a time"
    ),
]

LARGE, SMALL = (320, 260), (64, 64)
SETTINGS = {
    "by default": ({}, 2),
    "one by one": ({"batched": False}, 1),
    "in one stack": ({"batched": True}, 1),
    "steps may be skipped": ({"nonfinite": "skip"}, 1),
}


def optimizer_and_weights(shapes=(LARGE,) * 16, dtype="float32", **settings):
    rng = np.random.default_rng(5)
    weights = [
        keras.Variable(rng.normal(size=shape), dtype=dtype, name=f"w{number}")
        for number, shape in enumerate(shapes)
    ]
    optimizer = Muon(1e-2, **{"routes": {".*": "muon"}} | settings)
    optimizer.build(weights)
    return optimizer, weights


def stepped(**settings):
    import torch

    optimizer, weights = optimizer_and_weights(**settings)
    rng = np.random.default_rng(6)
    for _ in range(3):
        gradients = [rng.normal(size=w.shape).astype("float32") for w in weights]
        optimizer.apply([torch.from_numpy(gradient) for gradient in gradients])
    return [w.numpy() for w in [*weights, *optimizer.variables]]


@pytest.mark.parametrize("nesterov", [True, False])
def test_weights_and_state_are_those_of_one_after_another(monkeypatch, nesterov):
    """Sums differ in order where an operation has several threads, no more."""
    settings = {"nesterov": nesterov}
    shared, together = [], []
    real = sides._shared_out
    with monkeypatch.context() as context:
        context.setattr(sides, "_shared_out", lambda *a: shared.append(real(*a)))
        together = stepped(**settings)
    assert shared == [None] * 3
    monkeypatch.setattr(matrix_optimizer, "matrices_at_a_time", lambda *_: 1)
    for value, wanted in zip(together, stepped(**settings), strict=True):
        # None seen. A factor rounded to the next number of bfloat16 is 1e-5 off; the
        # steps move an entry by 3e-3.
        np.testing.assert_allclose(value, wanted, rtol=0, atol=5e-5)


def task_of(optimizer, indices):
    return optimizer.task_of(indices, lambda: None)


@pytest.mark.parametrize("name", SETTINGS)
def test_only_what_is_stepped_in_place_is_side_by_side(name):
    """Large matrices, each in a bucket of its own."""
    settings, expected = SETTINGS[name]
    large = optimizer_and_weights(**settings)[0]
    bucket = next(bucket for bucket in large.buckets(range(16)) if 3 in bucket)
    assert task_of(large, bucket).at_a_time == expected
    stack = optimizer_and_weights((SMALL,) * 16, **settings)[0]
    assert task_of(stack, range(16)).at_a_time == 1


def test_kernels_of_small_matrices_are_one_after_the_other():
    """However many matrices a kernel has."""
    view = MatrixView.of_last_axes((32, *SMALL))
    kernels = ((32, *SMALL),) * 16
    optimizer = optimizer_and_weights(kernels, routes={".*": view})[0]
    assert task_of(optimizer, [3]).at_a_time == 1


def test_adamw_keeps_all_threads():
    """It multiplies no matrices, and its memory is the limit."""
    task = task_of(optimizer_and_weights(routes={".*": "adamw"})[0], [0, 1])
    assert (task.at_a_time, task.operations) == (1, 0.0)


def test_operations_are_those_of_the_plan():
    """Of every matrix that a kernel has."""
    rng = np.random.default_rng(5)
    weight = keras.Variable(rng.normal(size=(3, 320, 260)), name="w")
    optimizer = Muon(1e-2, routes={".*": MatrixView.of_last_axes((3, 320, 260))})
    optimizer.build([weight])
    ((count, plan),) = optimizer.plans
    assert count == 3
    assert task_of(optimizer, [0]).operations == 3 * plan.flops


def test_master_copies_and_stateless_steps_are_one_after_the_other(monkeypatch):
    """Neither is written in place."""
    narrow = optimizer_and_weights(dtype="bfloat16")[0]
    assert task_of(narrow, [3]).at_a_time == 1
    optimizer, weights = optimizer_and_weights()
    asked = []

    def spy(tasks):
        asked.extend(task.at_a_time for task in tasks)

    monkeypatch.setattr("keras_muon.bucketed_optimizer.side_by_side", spy)
    values = [w.value for w in weights]
    optimizer.stateless_apply([v.value for v in optimizer.variables], values, values)
    assert asked == [1] * 16
