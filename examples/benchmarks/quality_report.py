"""The errors as a table and as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from quality_measures import BASELINE, SYNTHETIC, Row, mean_error
from rich.console import Console
from rich.table import Table


def print_report(
    rows: Sequence[Row], methods: Sequence[str], problems: Sequence[str], default: str
) -> None:
    """Print a table, and the verdict in words.

    Args:
        rows: All matrices.
        methods: The methods, `BASELINE` among them.
        problems: Every breach of the contract.
        default: The schedule that stands behind the method "default".
    """
    console = Console()
    console.print(error_table(rows, methods))
    if "default" in {method.partition(":")[0] for method in methods}:
        console.print(f"default is {default!r}.")
    for problem in problems:
        console.print(f"[red]breach: {problem}[/]", soft_wrap=True, highlight=False)
    verdict = f"{len(problems)} breaches of" if problems else "all methods keep"
    console.print(f"{verdict} the contract on {len(rows)} matrices.")


def error_table(rows: Sequence[Row], methods: Sequence[str]) -> Table:
    """Return mean errors per source, and the largest ratio to Jordan's on a matrix."""
    title = (
        "|O - P| / |P| in float64, mean over matrices; in brackets the largest ratio "
        f"to {BASELINE} on one of them. Keras on {keras.backend.backend()}"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("source")
    table.add_column("matrices", justify="right")
    for method in methods:
        table.add_column(method, justify="right")
    real = [row for row in rows if row.source != SYNTHETIC]
    sources = list(dict.fromkeys(row.source for row in rows))
    parts = [(name, [row for row in rows if row.source == name]) for name in sources]
    for name, part in [*parts, ("all captures", real)]:
        if part:
            cells = (_cell(part, method) for method in methods)
            table.add_row(name, str(len(part)), *cells)
    return table


def worst_ratio(rows: Sequence[Row], method: str) -> float:
    """Return the largest ratio of an error to Jordan's, where that is not zero."""
    pairs = [(row.errors[method], row.errors[BASELINE]) for row in rows]
    return max((error / base for error, base in pairs if base), default=0.0)


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as dictionaries."""
    return [dataclasses.asdict(row) for row in rows]


def _cell(rows: Sequence[Row], method: str) -> str:
    mean = f"{mean_error(rows, method):.4f}"
    if method == BASELINE:
        return mean
    return f"{mean} ({worst_ratio(rows, method):.3f})"
