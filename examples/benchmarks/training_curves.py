"""Does the default schedule train as well as five Jordan steps?

    python examples/benchmarks/training_curves.py --backend torch --steps 200
    python examples/benchmarks/training_curves.py --steps 40 --models vit --seeds 2

Three kinds of models, each trained from the same first weights on the same batches by
both, for several seeds. The rule, for each model: the default's mean final validation
loss may exceed Jordan's by no more than the standard deviation of Jordan's over seeds.
The exit code is 1 where it does.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

MODELS = ("gpt64", "gpt128", "convnet", "vit")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, or leave with a message."""
    parser = argparse.ArgumentParser(
        description="Compare training by the default schedule and by Jordan's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backend", choices=("jax", "torch", "tensorflow"))
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=["gpt64", "convnet", "vit"]
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each, 2 or more")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps per evaluation")
    parser.add_argument("--schedule", help="instead of the default one")
    parser.add_argument("--plot", type=Path, default=Path("training_curves.png"))
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error(f"--seeds: a spread needs 2 or more; got {options.seeds}.")
    if options.schedule == "jordan":
        parser.error("--schedule: jordan is what others are compared with.")
    if not 0 < options.every <= options.steps or options.steps % options.every:
        parser.error(
            f"--steps must be a multiple of --every; got {options.steps} and "
            f"{options.every}."
        )
    if not options.plot.absolute().parent.is_dir():
        parser.error(f"--plot: there is no folder {options.plot.absolute().parent}.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print, draw; return the exit code."""
    options = parsed(arguments)
    # Keras reads its backend once, when it is imported, which happens below.
    if options.backend:
        os.environ["KERAS_BACKEND"] = options.backend
    os.environ.setdefault("KERAS_BACKEND", "jax")
    from rich.console import Console
    from training_curves_report import breaches, loss_table, save_plot
    from training_curves_runs import Length, all_curves

    length = Length(options.steps, options.every)
    curves = all_curves(options.models, options.seeds, length, options.schedule)

    console = Console()
    console.print(loss_table(curves, options.steps))
    save_plot(curves, options.every, options.plot)
    console.print(f"Curves: {options.plot.resolve()}", soft_wrap=True)
    problems = breaches(curves)
    for problem in problems:
        console.print(f"[red]breach: {problem}[/]", soft_wrap=True, highlight=False)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
