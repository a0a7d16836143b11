"""How long does a whole optimizer step take, beside Keras' own Muon and the others'?

    python examples/benchmarks/optimizer_step.py --backend torch --model gpt2 --layers 2
    python examples/benchmarks/optimizer_step.py --model vit --jit both --json step.json

Every backend has a process of its own, in which its contenders take turns on the same
matrices and gradients, called as training calls them (see `carriers.py`). What counts
are ratios of times within a round; their median over rounds is shown. Beside them: the
first call with all that it traces and compiles; the operations of Newton-Schulz
(counted as in `step_flops.py`) and their speed as a share of bare matrix products of
the same shapes, dtype and framework, which take turns too; state and temporary memory
over one float32 momentum (measured as in `memory.py`, a process per contender); and the
mean distance of the update from the exact polar factor. The exit code is 1 if a
contender did not orthogonalize every matrix, or nothing was measured.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from argument_types import file_to_write, plot_to_write, whole_number
from implementations import BACKENDS
from machine import versions
from rich.console import Console
from step_models import MODELS, SOURCES, shapes_of
from step_report import NOT_MEASURED, save_plot, step_table, wide_console
from step_runs import (
    CHOICES,
    forms,
    raced,
    unorthogonalized,
    wanted_backends,
)

# Seconds of a turn; long enough for the clock, short enough for many rounds.
TURN, QUICK_TURN = 0.3, 0.01
QUICK = {"model": "tiny", "layers": 1, "rounds": 2, "memory": False}


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, or leave with a message."""
    parser = argparse.ArgumentParser(
        description="Time whole optimizer steps in alternating turns.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backend", choices=(*BACKENDS, "all"), default="all")
    parser.add_argument("--model", choices=MODELS, default="gpt2")
    parser.add_argument("--layers", type=whole_number(), help="only the first layers")
    parser.add_argument("--rounds", type=whole_number(), default=7)
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: a GPU where a framework finds one",
    )
    parser.add_argument(
        "--jit",
        choices=CHOICES,
        default="on",
        help="whether TensorFlow compiles with XLA; Keras does with an accelerator",
    )
    parser.add_argument(
        "--memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the memory of each contender in a process of its own",
    )
    parser.add_argument("--json", type=file_to_write, help="where to write all numbers")
    parser.add_argument("--plot", type=plot_to_write, help="where to draw the ratios")
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
    shapes = shapes_of(options.model, options.layers)
    console.print(f"{options.model}: {len(shapes)} matrices. {SOURCES[options.model]}.")
    answers = _measured(options, shapes, console)
    problems = {name: unorthogonalized(answer) for name, answer in answers.items()}
    for name, found in problems.items():
        for problem in found:
            console.print(f"[red]{name}: {problem}[/]")
    content = {"model": options.model, "shapes": shapes, "versions": versions()}
    content |= {"backends": answers, "problems": problems}
    console.print(", ".join(f"{n} {v}" for n, v in versions().items() if v))
    if options.json:
        text = json.dumps(content, indent=1) + "\n"
        options.json.write_text(text, encoding="utf-8")
    if options.plot and answers:
        save_plot(options.plot, content)
    return 1 if any(problems.values()) or not answers else 0


def _measured(
    options: argparse.Namespace, shapes: Sequence, console: Console
) -> dict[str, dict[str, Any]]:
    """Return the answers by title, shown as soon as a backend has all."""
    found, lacking = wanted_backends(options.backend)
    for name in lacking:
        console.print(f"{name}: {NOT_MEASURED}, it is not installed.")
    turn = QUICK_TURN if options.quick else TURN
    settings = {"rounds": options.rounds, "turn": turn, "memory": options.memory}
    answers = {}
    for form in forms(found, options.jit):
        for title, answer in raced([form], shapes, options.device, **settings).items():
            if answer:
                answers[title] = answer
                console.print(step_table(title, answer))
            else:
                console.print(f"{title}: {NOT_MEASURED}, it finds no CUDA device.")
    return answers


if __name__ == "__main__":
    raise SystemExit(main())
