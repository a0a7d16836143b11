"""Does the default schedule train as well as five Jordan steps?

    python examples/benchmarks/training_curves.py --backend torch --steps 200
    python examples/benchmarks/training_curves.py --steps 40 --models vit --seeds 2
    python examples/benchmarks/training_curves.py --models gpt384 convnet384 vit384
    python examples/benchmarks/training_curves.py --backend torch --models gpt768

The last four are wide enough that the default compresses leading singular values in
most of their matrices, which is another algorithm; a table tells in how many. In
bfloat16 on torch the steps of `gpt768` share one Gram matrix where that pays.

Three kinds of models, each trained from the same first weights on the same batches by
both, at a rate that falls linearly to zero, for several seeds. The rule, for each
model: the default's mean final validation loss may exceed Jordan's by no more than the
standard deviation of Jordan's over seeds. The exit code is 1 where it does.
"""

import argparse
import os
from collections.abc import Sequence

from argument_types import file_to_write, plot_to_write, whole_number

# Its module does not import Keras, whose backend is chosen later.
from keras_muon.schedules import SCHEDULES

SMALL = ("gpt64", "gpt128", "convnet", "vit")
WIDE = ("gpt384", "convnet384", "vit384", "gpt768")
# Jordan's is what they are compared with.
OTHERS = [name for name in SCHEDULES if name != "jordan"]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, or leave with a message."""
    parser = argparse.ArgumentParser(
        description="Compare training by the default schedule and by Jordan's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backend", choices=("jax", "torch", "tensorflow"))
    parser.add_argument(
        "--models",
        nargs="+",
        choices=(*SMALL, *WIDE),
        default=["gpt64", "convnet", "vit"],
    )
    parser.add_argument(
        "--seeds", type=whole_number(2), default=3, help="runs of each, 2 or more"
    )
    parser.add_argument("--steps", type=whole_number(), default=200)
    parser.add_argument(
        "--every", type=whole_number(), default=20, help="steps per evaluation"
    )
    parser.add_argument("--schedule", choices=OTHERS, help="instead of the default one")
    parser.add_argument("--plot", type=plot_to_write, default="training_curves.png")
    parser.add_argument(
        "--json", type=file_to_write, help="where every loss goes, run by run"
    )
    options = parser.parse_args(arguments)
    if options.steps % options.every:
        parser.error(
            f"--steps must be a multiple of --every; got {options.steps} and "
            f"{options.every}."
        )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, print, draw; return the exit code."""
    options = parsed(arguments)
    # Keras reads its backend once, when it is imported, which happens below.
    if options.backend:
        os.environ["KERAS_BACKEND"] = options.backend
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import training_curves_report as report
    from rich.console import Console
    from training_curves_runs import Length, Runs, all_runs

    length = Length(options.steps, options.every)

    def save(runs: Runs) -> None:
        if options.json:
            report.save_json(runs, length, options.json)

    runs = all_runs(options.models, options.seeds, length, options.schedule, save)
    console = Console()
    console.print(report.loss_table(runs, options.steps), report.matrix_table(runs))
    report.save_plot(runs, options.every, options.plot)
    console.print(f"Curves: {options.plot.resolve()}", soft_wrap=True)
    problems = report.breaches(runs)
    for problem in problems:
        console.print(f"[red]breach: {problem}[/]", soft_wrap=True, highlight=False)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
