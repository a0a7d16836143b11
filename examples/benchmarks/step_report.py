"""Times, operations, memory and errors of steps, as a table and as bars."""

import statistics
from pathlib import Path
from typing import Any

import matplotlib
from contenders import OURS
from interleaving import median_ratio
from rich.console import Console
from rich.table import Table

matplotlib.use("Agg")
from matplotlib import pyplot

NOT_MEASURED = "not measured"
NOT_APPLICABLE = "-"
WIDTH = 126
COLUMNS = (
    "time / ours",
    "first / ours",
    "ms",
    "GFLOP",
    "of peak",
    "memory",
    "error",
)


def wide_console() -> Console:
    """Return a console in which the tables fit, also where output is no terminal."""
    return Console(width=max(WIDTH, Console().width))


def step_table(title: str, answer: dict[str, Any]) -> Table:
    """Return a row per contender of a backend, with the columns of `COLUMNS`."""
    table = Table(
        title=f"{title} on {answer['device']}, {answer['threads']} threads",
        title_justify="left",
    )
    table.add_column("optimizer", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name in answer["contenders"]:
        table.add_row(name, *row_of(name, answer).values())
    return table


def row_of(name: str, answer: dict[str, Any]) -> dict[str, str]:
    """Return the cells of a contender by column, in words."""
    row, ours = answer["contenders"][name], answer["contenders"][OURS]
    first = row["first call seconds"] / ours["first call seconds"]
    seconds = statistics.median(row["seconds"])
    share, memory = share_of_peak(name, answer), extra_memory(name, answer)
    errors = row["orthogonality errors"]
    cells = (
        f"{ratio_to_ours(name, answer):.2f}",
        f"{first:.2f}",
        f"{1e3 * seconds:.3g}",
        f"{row['flops'] / 1e9:.3g}" if errors else NOT_APPLICABLE,
        f"{share:.0%} of {row['dtype']}" if errors else NOT_APPLICABLE,
        NOT_MEASURED if memory is None else f"{memory:.2f}",
        f"{statistics.mean(errors):.3f}" if errors else NOT_APPLICABLE,
    )
    return dict(zip(COLUMNS, cells, strict=True))


def ratio_to_ours(name: str, answer: dict[str, Any]) -> float:
    """Return a contender's time over keras_muon's, the median over rounds."""
    times = {n: row["seconds"] for n, row in answer["contenders"].items()}
    return median_ratio(times, name, OURS)


def peak(dtype: str, answer: dict[str, Any]) -> float:
    """Return the FLOP/s of bare products in a dtype, in their faster form."""
    times = [t for n, t in answer["products"].items() if n.startswith(f"{dtype},")]
    return answer["product flops"] / min(map(statistics.median, times))


def share_of_peak(name: str, answer: dict[str, Any]) -> float:
    """Return a contender's FLOP/s over the whole step, over that of bare products.

    Of matrices so small that calls take longer than products it may exceed 1.
    """
    row = answer["contenders"][name]
    speed = row["flops"] / statistics.median(row["seconds"])
    return speed / peak(row["dtype"], answer)


def extra_memory(name: str, answer: dict[str, Any]) -> float | None:
    """Return state and temporaries, over one float32 momentum of all matrices."""
    row = answer["contenders"][name]
    if row["temporary bytes"] is None:
        return None
    used = row["state bytes"] + row["temporary bytes"]
    return used / answer["momentum bytes"]


def save_plot(path: Path, content: dict[str, Any]) -> None:
    """Draw every contender's time over keras_muon's, a panel per backend."""
    answers = content["backends"]
    figure, axes = pyplot.subplots(
        len(answers),
        figsize=(8, 2.4 * len(answers)),
        layout="constrained",
        squeeze=False,
    )
    for axis, (title, answer) in zip(axes.flat, answers.items(), strict=True):
        names = list(answer["contenders"])[::-1]
        ratios = [ratio_to_ours(name, answer) for name in names]
        colors = ["C1" if name == OURS else "C0" for name in names]
        bars = axis.barh(names, ratios, color=colors)
        axis.bar_label(bars, fmt="%.2f", padding=3)
        axis.axvline(1.0, color="grey", linestyle=":", linewidth=1)
        axis.set_title(f"{title}: {content['model']} on {answer['device']}")
        axis.set_xlabel("time of a whole step over keras_muon's")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
