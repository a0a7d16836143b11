"""How much of a whole training step does the optimizer take?

    python examples/benchmarks/training_overhead.py --backend jax
    python examples/benchmarks/training_overhead.py --width 512 --json overhead.json

A GPT over bytes, like the quickstart's, trains by `train_on_batch`, whose step is the
one of `model.fit`, compiled as Keras does by default. Models that differ only in their
optimizer take turns in one process per backend. The share of an optimizer is what a
step takes longer than with plain SGD, whose own time counts as the model's. Keras' own
Muon gives attention's kernels, of three axes, to AdamW, and orthogonalizes its biases,
of two; how many parameters each orthogonalizes stands beside it.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from typing import Any

from argument_types import file_to_write, whole_number
from contenders import OURS
from implementations import BACKENDS
from interleaving import median_ratio
from machine import versions
from overhead_worker import PLAIN
from rich.table import Table
from step_report import NOT_APPLICABLE, NOT_MEASURED, wide_console
from step_runs import wanted_backends
from whole_step import HEADS
from workers import asked

TURN, QUICK_TURN = 0.5, 0.01
QUICK = {"width": 16, "layers": 1, "batch": 2, "rounds": 2}


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, or leave with a message."""
    parser = argparse.ArgumentParser(
        description="Time whole training steps with several optimizers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backend", choices=(*BACKENDS, "all"), default="all")
    count, widths = whole_number(), whole_number(multiple=HEADS)
    parser.add_argument("--width", type=widths, default=256, help="of the GPT")
    parser.add_argument("--layers", type=count, default=4, help="blocks of the GPT")
    parser.add_argument("--batch", type=count, default=16, help="sequences of 64 bytes")
    parser.add_argument("--rounds", type=count, default=7)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", type=file_to_write, help="where to write all numbers")
    parser.add_argument("--quick", action="store_true", help="a tiny GPT")
    options = parser.parse_args(arguments)
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
    given = {name: getattr(options, name) for name in QUICK}
    given["turn"] = QUICK_TURN if options.quick else TURN
    answers = {}
    for name in found:
        answer = asked("overhead_worker.py", name, given, options.device)
        if not answer:
            console.print(f"{name}: {NOT_MEASURED}, it finds no CUDA device.")
            continue
        answers[name] = answer
        console.print(overhead_table(name, answer))
    content = {"options": given, "versions": versions(), "backends": answers}
    if options.json:
        text = json.dumps(content, indent=1) + "\n"
        options.json.write_text(text, encoding="utf-8")
    return 0 if answers else 1


def share(name: str, answer: dict[str, Any]) -> float:
    """Return the part of a training step that an optimizer takes, 0 to 1.

    Noise can make it negative where it is next to nothing.
    """
    return 1.0 - 1.0 / median_ratio(answer["seconds"], name, PLAIN)


def overhead_table(title: str, answer: dict[str, Any]) -> Table:
    """Return a row per optimizer: step time over ours, the optimizer's share of it."""
    table = Table(
        title=f"{title} on {answer['device']}: GPT of {answer['parameters']:,}",
        title_justify="left",
    )
    table.add_column("optimizer")
    for column in ("ms", "step / ours", "share of the step", "orthogonalized"):
        table.add_column(column, justify="right")
    for name, seconds in answer["seconds"].items():
        part = NOT_APPLICABLE if name == PLAIN else f"{share(name, answer):.1%}"
        table.add_row(
            name,
            f"{1e3 * statistics.median(seconds):.3g}",
            f"{median_ratio(answer['seconds'], name, OURS):.2f}",
            part,
            f"{answer['orthogonalized'][name]:,}",
        )
    return table


if __name__ == "__main__":
    raise SystemExit(main())
