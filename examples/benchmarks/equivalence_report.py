"""The differences as tables, as a heat map, and as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cases import (
    CASES,
    COMPRESSED_SCHEDULE,
    DTYPES,
)
from differences import Results, limit, pairwise, worst
from implementations import key
from rich.table import Table

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.colors import LogNorm


def pair_table(title: str, names: Sequence[str], matrix: np.ndarray) -> Table:
    """Return the lower triangle of a matrix of differences."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in names[:-1]:
        table.add_column(name, justify="right")
    for i, name in enumerate(names[1:], start=1):
        table.add_row(name, *(short(matrix[i, j]) for j in range(i)))
    return table


def case_table(results: Results, schedules: Sequence[str], dtype: str) -> Table:
    """Return the largest difference of any pair, by case and schedule."""
    title = f"largest difference of any pair, {dtype}; the limit is for jordan"
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    for schedule in schedules:
        table.add_column(schedule, justify="right")
    table.add_column("limit", justify="right")
    for case, row in zip(CASES, by_case(results, schedules, dtype), strict=True):
        table.add_row(case, *map(short, [*row, limit(dtype, case)]))
    return table


def compressed_table(results: Results, cases: Sequence[str]) -> Table:
    """Return the largest difference of any pair where `auto` compresses."""
    title = f"largest difference of any pair, {COMPRESSED_SCHEDULE} as it is planned"
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    for dtype in DTYPES:
        table.add_column(dtype, justify="right")
        table.add_column("limit", justify="right")
    for case in cases:
        entries = []
        for dtype in DTYPES:
            name = key(dtype, COMPRESSED_SCHEDULE, case)
            entries += [pairwise(results, name).max(), limit(dtype, case)]
        table.add_row(case, *map(short, entries))
    return table


def short(difference: float) -> str:
    """Return a number with two digits, as 2.9e-6."""
    mantissa, _, exponent = f"{difference:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def by_case(results: Results, schedules: Sequence[str], dtype: str) -> np.ndarray:
    """Return the largest difference of any pair: a row per case."""
    return np.array(
        [
            [
                pairwise(results, key(dtype, schedule, case)).max()
                for schedule in schedules
            ]
            for case in CASES
        ]
    )


def save_heat_map(path: Path, results: Results, schedules: Sequence[str]) -> None:
    """Draw pairs in both dtypes, and cases by schedule in float32."""
    names = list(results)
    figure, axes = pyplot.subplots(1, 3, figsize=(17, 5.5), layout="constrained")
    for axis, dtype in zip(axes, DTYPES, strict=False):
        matrix = worst(results, [key(dtype, "jordan", case) for case in CASES])
        _draw(axis, matrix, names, names, f"jordan, {dtype}: pairs")
    matrix = by_case(results, schedules, "float32")
    _draw(axes[2], matrix, schedules, list(CASES), "float32: worst pair of each case")
    figure.suptitle("Largest difference of an entry")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def save_json(
    path: Path,
    results: Results,
    schedules: Sequence[str],
    compressed: Sequence[str],
    rest: dict,
) -> None:
    """Write every difference of every pair.

    Args:
        path: Where to.
        results: Arrays by implementation.
        schedules: Names of schedules.
        compressed: Cases of `auto` with compression.
        rest: What else to write.
    """
    works = [(schedule, case) for schedule in schedules for case in CASES]
    works += [(COMPRESSED_SCHEDULE, case) for case in compressed]
    names = [key(dtype, *work) for dtype in DTYPES for work in works]
    differences: dict[str, Any] = {
        name: _pairs(list(results), pairwise(results, name)) for name in names
    }
    content = {"implementations": list(results), "newton_schulz": differences, **rest}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def steps_as_json(results: Results, before: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the differences after the steps, and how far parameters moved."""
    return {
        "differences": _pairs(list(results), worst(results, before)),
        "moved": moved(results, before),
        "parameters": sum(value.size for value in before.values()),
    }


def moved(results: Results, before: dict[str, np.ndarray]) -> float:
    """Return how far the variable that moved least did move, in its largest entry."""
    after = next(iter(results.values()))
    return min(float(np.abs(after[name] - before[name]).max()) for name in before)


def _pairs(names: list[str], matrix: np.ndarray) -> dict[str, float]:
    return {
        f"{names[j]}, {names[i]}": float(matrix[i, j])
        for i in range(len(names))
        for j in range(i)
    }


def _draw(
    axis: Any,
    matrix: np.ndarray,
    columns: Sequence[str],
    rows: Sequence[str],
    title: str,
) -> None:
    shown = np.where(matrix > 0, matrix, np.nan)  # zero has no logarithm
    norm = LogNorm(np.nanmin(shown), np.nanmax(shown))
    image = axis.imshow(shown, norm=norm, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axis.set_yticks(range(len(rows)), rows)
    axis.set_title(title)
    for (i, j), value in np.ndenumerate(matrix):
        color = "white" if value > 0 and norm(value) < 0.7 else "black"
        axis.text(j, i, short(value), ha="center", va="center", color=color, size=7)
    axis.figure.colorbar(image, ax=axis)
