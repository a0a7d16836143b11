"""What share of the time of Newton-Schulz do its matrix products take?

    python examples/benchmarks/newton_schulz_share.py --backend torch
    python examples/benchmarks/newton_schulz_share.py --model vit --jit both

For every plan of the optimizer, see `describe()`, the iteration and each of the plan's
own products take turns, on one matrix, or on the stack that the optimizer makes; where
it works on several matrices side by side, so does the iteration. The products are bare
ones of the same framework and dtype, and whole: of a symmetric one that is computed in
panels, the part that is computed counts. 100 % would mean that norms, sums and
transposes, and the rows of short products, cost nothing.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from typing import Any

from argument_types import file_to_write, whole_number
from implementations import BACKENDS
from machine import versions
from rich.table import Table
from step_models import MODELS, shapes_of
from step_report import NOT_MEASURED, wide_console
from step_runs import CHOICES, forms, wanted_backends
from workers import asked

TURN, QUICK_TURN = 0.2, 0.005
QUICK = {"model": "tiny", "layers": 1, "rounds": 2}


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, or leave with a message."""
    parser = argparse.ArgumentParser(
        description="Time Newton-Schulz beside its own matrix products.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backend", choices=(*BACKENDS, "all"), default="all")
    parser.add_argument("--model", choices=MODELS, default="gpt2")
    parser.add_argument("--layers", type=whole_number(), help="only the first layers")
    parser.add_argument("--rounds", type=whole_number(), default=7)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--jit", choices=CHOICES, default="on", help="whether TensorFlow uses XLA"
    )
    parser.add_argument("--json", type=file_to_write, help="where to write all numbers")
    parser.add_argument("--quick", action="store_true", help="a few tiny matrices")
    options = parser.parse_args(arguments)
    try:
        shapes_of(options.model, options.layers)
    except ValueError as error:
        parser.error(str(error).replace("`layers`", "--layers"))
    # Only now: what --quick replaces is refused all the same.
    if options.quick:
        vars(options).update(QUICK)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; return the exit code."""
    options = parsed(arguments)
    console = wide_console()
    found, lacking = wanted_backends(options.backend)
    for name in lacking:
        console.print(f"{name}: {NOT_MEASURED}, it is not installed.")
    turn = QUICK_TURN if options.quick else TURN
    given = {"shapes": shapes_of(options.model, options.layers), "turn": turn}
    given["rounds"] = options.rounds
    answers = {}
    for title, backend, jit in forms(found, options.jit):
        told = asked("share_worker.py", backend, given | {"jit": jit}, options.device)
        if not told:
            console.print(f"{title}: {NOT_MEASURED}, it finds no CUDA device.")
            continue
        answers[title] = told
        console.print(share_table(title, told))
    content = {"options": given, "versions": versions(), "backends": answers}
    if options.json:
        text = json.dumps(content, indent=1) + "\n"
        options.json.write_text(text, encoding="utf-8")
    return 0 if answers else 1


def share_table(title: str, answer: dict[str, Any]) -> Table:
    """Return a row per plan, and one for all matrices of the model."""
    table = Table(title=f"{title} on {answer['device']}", title_justify="left")
    for column in ("in x out", "at once", "dtype"):
        table.add_column(column)
    for column in ("matrices", "ms", "ms of products", "share"):
        table.add_column(column, justify="right")
    for row in answer["plans"]:
        table.add_row(*row["words"], str(row["matrices"]), *cells([row]))
    table.add_section()
    matrices = sum(row["matrices"] for row in answer["plans"])
    table.add_row("all", "", "", str(matrices), *cells(answer["plans"]))
    return table


def cells(rows: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    """Return milliseconds of all matrices, those of their products, and the share."""
    whole, products = totals(rows, "seconds"), totals(rows, "seconds of products")
    seconds = (1e3 * statistics.median(times) for times in (whole, products))
    return (*(f"{time:.3g}" for time in seconds), f"{share(rows):.0%}")


def share(rows: Sequence[dict[str, Any]]) -> float:
    """Return the products' time over the iterations', the median over rounds."""
    whole, products = totals(rows, "seconds"), totals(rows, "seconds of products")
    return statistics.median(p / w for p, w in zip(products, whole, strict=True))


def totals(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    """Return a round's seconds for all matrices of these rows, by round."""
    times = [[row["calls"] * time for time in row[name]] for row in rows]
    return [sum(round_) for round_ in zip(*times, strict=True)]


if __name__ == "__main__":
    raise SystemExit(main())
