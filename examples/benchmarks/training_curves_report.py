"""The runs judged, as a table, as JSON and as a drawing."""

import dataclasses
import json
import sys
from pathlib import Path

import keras
import matplotlib
import numpy as np
from machine import frameworks, versions
from rich.table import Table
from training_curves_runs import BASELINE, Length, Runs, losses_of

matplotlib.use("Agg")
from matplotlib import pyplot


def spread(curves: np.ndarray) -> float:
    """Return the standard deviation of the final losses over seeds, one seed free.

    Args:
        curves: Losses (seeds, evaluations).
    """
    return float(np.std(curves[:, -1], ddof=1))


def breaches(runs: Runs) -> list[str]:
    """Return in words where a schedule ends above Jordan's by more than its spread.

    Args:
        runs: By model and method, one per seed.
    """
    found = []
    for model, methods in runs.items():
        base = losses_of(methods[BASELINE])
        limit = base[:, -1].mean() + spread(base)
        for method, of_seeds in methods.items():
            final = losses_of(of_seeds)[:, -1].mean()
            # Not a number is a breach, too.
            if not final <= limit:
                found.append(f"{model}: {method} {final:.4f}, allowed {limit:.4f}")
    return found


def loss_table(runs: Runs, steps: int) -> Table:
    """Return mean and spread of the final losses, a row per model and method.

    Args:
        runs: By model and method, one per seed.
        steps: Steps of training, for the title.
    """
    title = (
        f"validation loss after {steps} steps, mean over seeds and standard deviation, "
        f"Keras {keras.__version__} on {keras.backend.backend()}"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    table.add_column("schedule")
    for column in ("mean", "spread", "minus Jordan's", "in its spreads", "each seed"):
        table.add_column(column, justify="right")
    for model, methods in runs.items():
        base = losses_of(methods[BASELINE])
        for method, of_seeds in methods.items():
            losses = losses_of(of_seeds)
            more = losses[:, -1].mean() - base[:, -1].mean()
            numbers = f"{losses[:, -1].mean():.4f}", f"{spread(losses):.4f}"
            compared = f"{more:+.4f}", f"{more / spread(base):+.2f}"
            seeds = " ".join(f"{loss:.4f}" for loss in losses[:, -1])
            table.add_row(model, method, *numbers, *compared, seeds)
    return table


def matrix_table(runs: Runs) -> Table:
    """Return how many matrices of each model are compressed, and the dtypes.

    Args:
        runs: By model and method, one per seed; the first tells.
    """
    table = Table(title="hidden matrices", title_justify="left")
    for column in ("model", "schedule", "compressed", "dtypes of products"):
        table.add_column(column)
    for model, methods in runs.items():
        for method, (first, *_) in methods.items():
            share = f"{first.compressed} of {first.matrices}"
            table.add_row(model, method, share, ", ".join(first.compute_dtypes))
    return table


def save_json(runs: Runs, length: Length, path: Path) -> None:
    """Write every loss, with the command, the machine and the versions.

    Args:
        runs: By model and method, one per seed.
        length: How long they were trained.
        path: Where to.
    """
    content = {
        "command": sys.argv,
        "machine": frameworks(keras.backend.backend()),
        "versions": versions(),
        "length": dataclasses.asdict(length),
        "runs": {
            model: {
                method: [dataclasses.asdict(run) for run in of_seeds]
                for method, of_seeds in methods.items()
            }
            for model, methods in runs.items()
        },
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save_plot(runs: Runs, every: int, path: Path) -> None:
    """Draw the mean curve of each method with the range over seeds.

    Args:
        runs: By model and method, one per seed.
        every: Steps between two evaluations.
        path: Where to.
    """
    count = len(runs)
    figure, axes = pyplot.subplots(
        1, count, figsize=(4.5 * count, 4), layout="constrained", squeeze=False
    )
    for axis, (model, methods) in zip(axes[0], runs.items(), strict=True):
        for method, of_seeds in methods.items():
            losses = losses_of(of_seeds)
            steps = every * (1 + np.arange(losses.shape[1]))
            axis.plot(steps, losses.mean(0), label=method)
            axis.fill_between(steps, losses.min(0), losses.max(0), alpha=0.2)
        axis.set(title=model, xlabel="step", ylabel="validation loss", yscale="log")
        axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
