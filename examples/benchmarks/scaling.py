"""How does the cost of a step grow with width, depth, aspect, and number of matrices?

    python examples/benchmarks/scaling.py --backend torch
    python examples/benchmarks/scaling.py --json scaling.json --plot scaling.png

For every point, keras_muon, the same without stacking, and Keras' own Muon take turns
in one process per backend. Shown are milliseconds, and ratios of times within a round.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from argument_types import file_to_write, plot_to_write, whole_number
from contenders import BUILT_IN, OURS, OURS_APART
from implementations import BACKENDS
from interleaving import median_ratio
from machine import versions
from rich.table import Table
from step_flops import Shape
from step_report import NOT_MEASURED, wide_console
from step_runs import wanted_backends
from workers import asked

matplotlib.use("Agg")
from matplotlib import pyplot

Series = dict[str, dict[str, list[Shape]]]

TURN, QUICK_TURN = 0.2, 0.005
WIDTHS = (128, 256, 512, 768, 1024, 1536)
COUNTS = (1, 4, 16, 64)
ASPECTS = (1, 2, 4, 8)
# One large enough to be multiplied alone, one that is not.
LARGE, SMALL = 384, 64


def series(quick: bool = False) -> Series:
    """Return the shapes of the matrices by series and point."""
    widths, counts, aspects = WIDTHS, COUNTS, ASPECTS
    large, small = LARGE, SMALL
    if quick:
        widths, counts, aspects, large, small = (16,), (2,), (2,), 16, 8
    return {
        "width": {str(n): [(n, n)] for n in widths},
        "depth": {str(n): [(large, large)] * n for n in counts},
        "aspect": {f"1:{n}": [(large, n * large)] for n in aspects},
        "stack": {str(n): [(small, small)] * n for n in counts},
    }


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, or leave with a message."""
    parser = argparse.ArgumentParser(
        description="Time optimizer steps over series of shapes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backend", choices=(*BACKENDS, "all"), default="all")
    parser.add_argument("--rounds", type=whole_number(), default=7)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", type=file_to_write, help="where to write all numbers")
    parser.add_argument("--plot", type=plot_to_write, help="where to draw the ratios")
    parser.add_argument("--quick", action="store_true", help="a few tiny matrices")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; return the exit code."""
    options = parsed(arguments)
    console, chosen = wide_console(), series(options.quick)
    found, lacking = wanted_backends(options.backend)
    for name in lacking:
        console.print(f"{name}: {NOT_MEASURED}, it is not installed.")
    turn = QUICK_TURN if options.quick else TURN
    given = {"series": chosen, "rounds": options.rounds, "turn": turn, "jit": True}
    answers = {}
    for name in found:
        answer = asked("scaling_worker.py", name, given, options.device)
        if not answer:
            console.print(f"{name}: {NOT_MEASURED}, it finds no CUDA device.")
            continue
        answers[name] = answer
        console.print(scaling_table(name, answer))
    content = {"series": chosen, "versions": versions(), "backends": answers}
    if options.json:
        text = json.dumps(content, indent=1) + "\n"
        options.json.write_text(text, encoding="utf-8")
    if options.plot and answers:
        save_plot(options.plot, answers)
    return 0 if answers else 1


def scaling_table(title: str, answer: dict[str, Any]) -> Table:
    """Return a row per point: milliseconds, and the others' times over ours."""
    table = Table(title=f"{title} on {answer['device']}", title_justify="left")
    for column in ("series", "point"):
        table.add_column(column)
    for column in ("ms", f"{BUILT_IN} / ours", "batched=False / ours"):
        table.add_column(column, justify="right")
    for name, points in answer["seconds"].items():
        for point, times in points.items():
            cells = [
                median_ratio(times, other, OURS) for other in (BUILT_IN, OURS_APART)
            ]
            seconds = statistics.median(times[OURS])
            ratios = (f"{cell:.2f}" for cell in cells)
            table.add_row(name, point, f"{1e3 * seconds:.3g}", *ratios)
        table.add_section()
    return table


def save_plot(path: Path, answers: dict[str, Any]) -> None:
    """Draw the built-in's time over ours: a panel per series, a line per backend."""
    names = list(next(iter(answers.values()))["seconds"])
    figure, axes = pyplot.subplots(
        1, len(names), figsize=(4 * len(names), 3.5), layout="constrained", sharey=True
    )
    for axis, name in zip(axes, names, strict=True):
        for backend, answer in answers.items():
            points = answer["seconds"][name]
            ratios = [median_ratio(t, BUILT_IN, OURS) for t in points.values()]
            axis.plot(list(points), ratios, marker="o", label=backend)
        axis.axhline(1.0, color="grey", linestyle=":", linewidth=1)
        axis.set_title(name)
    axes[0].set_ylabel(f"{BUILT_IN}'s time over keras_muon's")
    axes[0].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
