"""Training runs that differ in the schedule only: validation losses by model and seed.

Curves are arrays (seeds, evaluations) by model and method.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from captures import DIGITS_RATE, TEXT_RATE
from captures_models import (
    Batch,
    convnet,
    digits_batches,
    digits_validation,
    quickstart,
    vit,
)
from rich.progress import Progress

from keras_muon import Muon

BASELINE = "jordan"
CANDIDATE = "default"
CONTEXT, SEQUENCES = 64, 16

Curves = dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Length:
    """How long to train.

    Args:
        steps: Steps in all, a multiple of `every`.
        every: Steps between two evaluations.
    """

    steps: int
    every: int


@dataclasses.dataclass(frozen=True)
class Task:
    """A model and its data.

    Args:
        build: Returns the model.
        batches: Returns endless training batches for a seed.
        validation: Returns what training never sees.
        rate: Learning rate.
    """

    build: Callable[[], keras.Model]
    batches: Callable[[int], Iterator[Batch]]
    validation: Callable[[], Batch]
    rate: float


def all_curves(
    models: Sequence[str], seeds: int, length: Length, schedule: str | None
) -> Curves:
    """Return the validation losses of every model, method and seed.

    Args:
        models: Names, keys of `TASKS`.
        seeds: Number of runs of each.
        length: How long to train.
        schedule: What to compare with Jordan's. None names no schedule: the default.
    """
    methods: dict[str, dict[str, Any]] = {
        schedule or CANDIDATE: {"schedule": schedule} if schedule else {},
        BASELINE: {"schedule": BASELINE, "compute_dtype": "float32"},
    }
    curves: Curves = {}
    with Progress(transient=True) as progress:
        task = progress.add_task("", total=len(models) * len(methods) * seeds)
        for model in models:
            found: dict[str, list] = {method: [] for method in methods}
            for seed in range(seeds):
                for method, arguments in methods.items():
                    progress.update(task, description=f"{model} {method}")
                    losses = one_curve(TASKS[model], seed, length, arguments)
                    found[method].append(losses)
                    progress.advance(task)
            curves[model] = {name: np.array(runs) for name, runs in found.items()}
    return curves


def one_curve(
    task: Task, seed: int, length: Length, arguments: dict[str, Any]
) -> list[float]:
    """Train one model; return its validation losses.

    Args:
        task: The model and its data.
        seed: Of the first weights and of the batches.
        length: How long to train.
        arguments: Of Muon, beside rate and decay.
    """
    keras.utils.set_random_seed(seed)
    model = task.build()
    optimizer = Muon(task.rate, weight_decay=0.1, **arguments)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    history = model.fit(
        task.batches(seed),
        steps_per_epoch=length.every,
        epochs=length.steps // length.every,
        validation_data=task.validation(),
        validation_batch_size=128,
        shuffle=False,
        verbose=0,
    )
    return history.history["val_loss"]


def _gpt(width: int) -> Task:
    def text() -> Any:
        return quickstart().Text(CONTEXT, SEQUENCES)

    return Task(
        lambda: quickstart().build_gpt(width, 2, 4, CONTEXT),
        # A stretch of its own for every seed: step 0 of one is no step of another.
        lambda seed: text().batches(first=seed * 1_000_000),
        lambda: text().validation(),
        TEXT_RATE,
    )


TASKS = {
    "gpt64": _gpt(64),
    "gpt128": _gpt(128),
    "convnet": Task(convnet, digits_batches, digits_validation, DIGITS_RATE),
    "vit": Task(vit, digits_batches, digits_validation, DIGITS_RATE),
}
