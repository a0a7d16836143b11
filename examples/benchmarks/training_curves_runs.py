"""Training runs that differ in the schedule only: validation losses by model and seed.

Nothing else is set but rate and decay: products have the dtype that a user gets.
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
    wide_convnet,
)
from rich.progress import Progress

from keras_muon import Muon

BASELINE = "jordan"
CANDIDATE = "default"
CONTEXT = 64
WIDE, WIDE_HEADS, WIDE_BATCH = 384, 6, 32


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
        rate: Learning rate at the first step.
    """

    build: Callable[[], keras.Model]
    batches: Callable[[int], Iterator[Batch]]
    validation: Callable[[], Batch]
    rate: float


@dataclasses.dataclass(frozen=True)
class Run:
    """One model trained by one method.

    Args:
        losses: Validation losses, one per evaluation.
        matrices: Number of matrices that were orthogonalized.
        compressed: How many of them had leading singular values compressed.
        compute_dtypes: Dtypes of the products.
    """

    losses: tuple[float, ...]
    matrices: int
    compressed: int
    compute_dtypes: tuple[str, ...]


Runs = dict[str, dict[str, list[Run]]]


def all_runs(
    models: Sequence[str],
    seeds: int,
    length: Length,
    schedule: str | None,
    after_each: Callable[[Runs], None] = lambda runs: None,
) -> Runs:
    """Return the runs of every model and method, one per seed.

    The methods take turns: what changes meanwhile on the machine changes for both.

    Args:
        models: Names, keys of `TASKS`.
        seeds: Number of runs of each.
        length: How long to train.
        schedule: What to compare with Jordan's. None names no schedule: the default.
        after_each: Called with what there is after every run.
    """
    candidate = {schedule: {"schedule": schedule}} if schedule else {CANDIDATE: {}}
    methods = candidate | {BASELINE: {"schedule": BASELINE}}
    runs: Runs = {model: {name: [] for name in methods} for model in models}
    with Progress(transient=True) as progress:
        task = progress.add_task("", total=len(models) * len(methods) * seeds)
        for seed in range(seeds):
            for model in models:
                for name, arguments in methods.items():
                    progress.update(task, description=f"{model} {name} {seed}")
                    run = one_run(TASKS[model], seed, length, arguments)
                    runs[model][name].append(run)
                    progress.advance(task)
                    after_each(runs)
    return runs


def one_run(task: Task, seed: int, length: Length, arguments: dict[str, str]) -> Run:
    """Train one model.

    Args:
        task: The model and its data.
        seed: Of the first weights and of the batches.
        length: How long to train.
        arguments: Of Muon, beside rate and decay.
    """
    keras.utils.set_random_seed(seed)
    model = task.build()
    # At a constant rate the last losses would jump with the last batches.
    rate = keras.optimizers.schedules.PolynomialDecay(task.rate, length.steps, 0.0)
    optimizer = Muon(rate, weight_decay=0.1, **arguments)
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
    plans = model.optimizer.plans
    return Run(
        tuple(history.history["val_loss"]),
        sum(count for count, _ in plans),
        sum(count for count, plan in plans if plan.leading is not None),
        tuple(sorted({plan.compute_dtype for _, plan in plans})),
    )


def losses_of(runs: Sequence[Run]) -> np.ndarray:
    """Return the validation losses of runs, (runs, evaluations)."""
    return np.array([run.losses for run in runs])


def _gpt(width: int, heads: int, sequences: int) -> Task:
    def text() -> Any:
        return quickstart().Text(CONTEXT, sequences)

    return Task(
        lambda: quickstart().build_gpt(width, 2, heads, CONTEXT),
        # A stretch of its own for every seed: step 0 of one is no step of another.
        lambda seed: text().batches(first=seed * 1_000_000),
        lambda: text().validation(),
        TEXT_RATE,
    )


def _wide_digits(build: Callable[[], keras.Model]) -> Task:
    def batches(seed: int) -> Iterator[Batch]:
        return digits_batches(seed, WIDE_BATCH)

    return Task(build, batches, digits_validation, DIGITS_RATE)


TASKS = {
    "gpt64": _gpt(64, 4, 16),
    "gpt128": _gpt(128, 4, 16),
    "convnet": Task(convnet, digits_batches, digits_validation, DIGITS_RATE),
    "vit": Task(vit, digits_batches, digits_validation, DIGITS_RATE),
    # From 384 rows on, the default compresses leading singular values.
    "gpt384": _gpt(WIDE, WIDE_HEADS, 8),
    "convnet384": _wide_digits(lambda: wide_convnet(WIDE)),
    "vit384": _wide_digits(lambda: vit(WIDE, WIDE_HEADS)),
    # From 576 on, its steps share one Gram matrix in bfloat16 too, on torch.
    "gpt768": _gpt(2 * WIDE, 2 * WIDE_HEADS, 8),
}
