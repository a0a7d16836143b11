"""The curves judged, as a table and as a drawing."""

from pathlib import Path

import keras
import matplotlib
import numpy as np
from rich.table import Table
from training_curves_runs import BASELINE, Curves

matplotlib.use("Agg")
from matplotlib import pyplot


def spread(curves: np.ndarray) -> float:
    """Return the standard deviation of the final losses over seeds, one seed free.

    Args:
        curves: Losses (seeds, evaluations).
    """
    return float(np.std(curves[:, -1], ddof=1))


def breaches(curves: Curves) -> list[str]:
    """Return in words where a schedule ends above Jordan's by more than its spread.

    Args:
        curves: Losses (seeds, evaluations) by model and method.
    """
    found = []
    for model, methods in curves.items():
        limit = methods[BASELINE][:, -1].mean() + spread(methods[BASELINE])
        for method, runs in methods.items():
            final = runs[:, -1].mean()
            # Not a number is a breach, too.
            if not final <= limit:
                found.append(f"{model}: {method} {final:.4f}, allowed {limit:.4f}")
    return found


def loss_table(curves: Curves, steps: int) -> Table:
    """Return mean and spread of the final losses, a row per model and method.

    Args:
        curves: Losses (seeds, evaluations) by model and method.
        steps: Steps of training, for the title.
    """
    title = (
        f"validation loss after {steps} steps, mean over seeds and standard deviation, "
        f"Keras {keras.__version__} on {keras.backend.backend()}"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    table.add_column("schedule")
    for column in ("mean", "spread", "minus Jordan's", "each seed"):
        table.add_column(column, justify="right")
    for model, methods in curves.items():
        base = methods[BASELINE][:, -1].mean()
        for method, runs in methods.items():
            final = runs[:, -1]
            numbers = (final.mean(), spread(runs), final.mean() - base)
            cells = (f"{number:.4f}" for number in numbers)
            seeds = " ".join(f"{loss:.4f}" for loss in final)
            table.add_row(model, method, *cells, seeds)
    return table


def save_plot(curves: Curves, every: int, path: Path) -> None:
    """Draw the mean curve of each method with the range over seeds.

    Args:
        curves: Losses (seeds, evaluations) by model and method.
        every: Steps between two evaluations.
        path: Where to.
    """
    count = len(curves)
    figure, axes = pyplot.subplots(
        1, count, figsize=(4.5 * count, 4), layout="constrained", squeeze=False
    )
    for axis, (model, methods) in zip(axes[0], curves.items(), strict=True):
        for method, runs in methods.items():
            steps = every * (1 + np.arange(runs.shape[1]))
            axis.plot(steps, runs.mean(0), label=method)
            axis.fill_between(steps, runs.min(0), runs.max(0), alpha=0.2)
        axis.set(title=model, xlabel="step", ylabel="validation loss", yscale="log")
        axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
