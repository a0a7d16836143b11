"""Check lists and facts as tables for readers, or as JSON for machines."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_muon.export.check_row import Check

# Where the output is no terminal.
WIDTH_OF_FILES = 100

STATUS = {True: "ok", False: "FAILED", None: "left out"}
STYLES = {True: "green", False: "bold red", None: "yellow"}


def print_checks(title: str, checks: Sequence[Check], stream: TextIO) -> None:
    """Print one row per check.

    Args:
        title: What was checked, and the outcome.
        checks: The rows.
        stream: Where to.
    """
    table = Table()
    table.add_column("check", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("error", justify="right", no_wrap=True)
    table.add_column("bound", justify="right", no_wrap=True)
    table.add_column("detail", overflow="fold")
    for check in checks:
        cells = (
            Text(check.name),
            Text(STATUS[check.passed], style=STYLES[check.passed]),
            Text("" if check.error is None else f"{check.error:.1e}"),
            Text("" if check.bound is None else f"{check.bound:.0e}"),
            # Text, not str: rich would read brackets as markup.
            Text(check.detail),
        )
        table.add_row(*cells)
    _print(title, table, stream)


def print_facts(
    title: str, facts: Iterable[tuple[str, str, str]], stream: TextIO
) -> None:
    """Print rows of a topic, a name and a value; a topic is written once.

    Args:
        title: What they are about.
        facts: The rows, those of a topic together.
        stream: Where to.
    """
    table = Table(show_header=False)
    table.add_column("topic", no_wrap=True, style="bold")
    table.add_column("name", overflow="fold")
    table.add_column("value", overflow="fold")
    before = None
    for topic, name, value in facts:
        if before not in (None, topic):
            table.add_section()
        table.add_row(Text("" if topic == before else topic), Text(name), Text(value))
        before = topic
    _print(title, table, stream)


def print_json(
    about: Mapping[str, Any], checks: Sequence[Check], stream: TextIO
) -> None:
    """Print facts and a check list as one JSON object.

    Args:
        about: Plain values.
        checks: Become the list "checks".
        stream: Where to.
    """
    rows = [
        {
            "name": check.name,
            "result": STATUS[check.passed].replace(" ", "_").lower(),
            "error": _plain(check.error),
            "bound": check.bound,
            "detail": check.detail,
        }
        for check in checks
    ]
    print(json.dumps({**about, "checks": rows}, indent=2), file=stream)


def _plain(error: float | None) -> float | str | None:
    """JSON has no number for errors that are infinite or none."""
    return error if error is None or math.isfinite(error) else str(error)


def _print(title: str, table: Table, stream: TextIO) -> None:
    # Not the table's own title, which would be broken at the table's width.
    print(title, file=stream)
    width = None if stream.isatty() else WIDTH_OF_FILES
    Console(file=stream, width=width).print(table)
