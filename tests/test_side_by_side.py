"""Buckets are updated side by side on torch, and nothing else changes."""

import keras
import numpy as np
import pytest

from keras_muon import Muon, matrix_optimizer
from keras_muon import side_by_side as sides
from keras_muon.batching import LEAST_SMALL_STACKED_ON_CPU

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
@pytest.mark.parametrize(
    "shapes", [(LARGE,) * 16, ((96, 96), (96, 120)) * 24], ids=["large", "in stacks"]
)
def test_weights_and_state_are_those_of_one_after_another(
    monkeypatch, shapes, nesterov
):
    """Sums differ in order where an operation has several threads, no more."""
    settings = {"shapes": shapes, "nesterov": nesterov}
    shared, together = [], []
    real = sides._shared_out
    with monkeypatch.context() as context:
        context.setattr(sides, "_shared_out", lambda *a: shared.append(real(*a)))
        together = stepped(**settings)
    assert shared == [None] * 3
    monkeypatch.setattr(matrix_optimizer, "buckets_at_a_time", lambda *_: 1)
    for value, wanted in zip(together, stepped(**settings), strict=True):
        # None seen. A factor rounded to the next number of bfloat16 is 1e-5 off; the
        # steps move an entry by 3e-3.
        np.testing.assert_allclose(value, wanted, rtol=0, atol=5e-5)


def task_of(optimizer, indices):
    return optimizer.task_of(indices, lambda: None)


@pytest.mark.parametrize("name", SETTINGS)
def test_only_what_is_stepped_in_place_is_side_by_side(name):
    """Large matrices and stacks of small ones."""
    settings, expected = SETTINGS[name]
    large = optimizer_and_weights(**settings)[0]
    assert task_of(large, [3]).at_a_time == expected
    small = optimizer_and_weights((SMALL,) * 16, **settings)[0]
    assert task_of(small, range(16)).at_a_time == expected


@pytest.mark.parametrize("extent", [64, 96, 192])
def test_full_stacks_are_two_at_a_time(extent):
    """Also those whose last matrix passes the limit; until they are many."""
    count = 2 * LEAST_SMALL_STACKED_ON_CPU // extent**2 + 2
    optimizer = optimizer_and_weights(((extent, extent),) * count)[0]
    first, *_ = buckets = optimizer.buckets(range(count))
    assert len(first) * extent**2 >= LEAST_SMALL_STACKED_ON_CPU
    assert {task_of(optimizer, bucket).at_a_time for bucket in buckets} == {2}
    object.__setattr__(optimizer, "_entries", 8 * LEAST_SMALL_STACKED_ON_CPU)
    assert task_of(optimizer, first).at_a_time == 1


def test_adamw_keeps_all_threads():
    """It multiplies no matrices, and its memory is the limit."""
    task = task_of(optimizer_and_weights(routes={".*": "adamw"})[0], [0, 1])
    assert (task.at_a_time, task.operations) == (1, 0.0)


def test_operations_are_those_of_the_plans():
    """Of every matrix in a stack."""
    optimizer = optimizer_and_weights((SMALL,) * 16)[0]
    ((count, plan),) = optimizer.plans
    assert task_of(optimizer, range(16)).operations == 16 * plan.flops
    assert count == 16


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
