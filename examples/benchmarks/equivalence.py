"""Do all backends and both ONNX runtimes compute the same Newton-Schulz and step?

    python examples/benchmarks/equivalence.py
    python examples/benchmarks/equivalence.py --allow-missing --schedules jordan you

Every implementation runs in a process of its own on the same inputs: TensorFlow, JAX
and PyTorch through Keras, NumPy, the evaluator of the ONNX standard, ONNX Runtime, and
the exact answer in float64 by SVD. On matrices of 384 rows `auto` compresses leading
singular values, as the optimizer plans it, and the graphs do so too. Prints the largest
difference of every pair, and of whole optimizers after 50 steps; writes a heat map and
JSON. The exit code is 1 if an implementation is missing, or a difference exceeds its
limit.
"""

import argparse
from collections.abc import Sequence

from argument_types import folder_to_write, whole_number
from cases import CASES, COMPRESSED_CASES, DTYPES
from differences import LIMITS, STEP_LIMIT, exceeded, orthogonalized, stepped, worst
from equivalence_report import (
    case_table,
    compressed_table,
    moved,
    pair_table,
    save_heat_map,
    save_json,
    short,
    steps_as_json,
)
from implementations import BACKENDS, IMPLEMENTATIONS, MODULES, key
from processes import missing
from rich.console import Console
from step_report import wide_console
from whole_step import HEADS

from keras_muon.schedules import SCHEDULES


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, or leave with a message."""
    parser = argparse.ArgumentParser(
        description="Compare all implementations of Newton-Schulz and of the step.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = list(SCHEDULES)
    parser.add_argument("--schedules", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--compressed",
        nargs="*",
        choices=list(COMPRESSED_CASES),
        default=list(COMPRESSED_CASES),
        metavar="CASE",
        help="which cases of `auto` with compression to add",
    )
    count, widths = whole_number(), whole_number(multiple=HEADS)
    parser.add_argument("--steps", type=count, default=50)
    parser.add_argument(
        "--width", type=widths, default=256, help="of the GPT that steps"
    )
    parser.add_argument("--layers", type=count, default=4, help="blocks of that GPT")
    parser.add_argument(
        "--device",
        choices=("cpu", "auto"),
        default="cpu",
        help="auto: a GPU where a framework finds one, without TF32",
    )
    parser.add_argument(
        "--folder",
        type=folder_to_write,
        default="equivalence",
        help="for the heat map and JSON; made if it is not there",
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="compare what is installed"
    )
    options = parser.parse_args(arguments)
    if "jordan" not in options.schedules:
        parser.error("--schedules must hold jordan, whose limits are known.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, write; return the exit code."""
    options = parsed(arguments)
    console = wide_console()
    lacking = missing(MODULES, IMPLEMENTATIONS)
    for name, module in lacking.items():
        console.print(f"[red]missing: {name}[/] ({module} is not installed)")
    names = [name for name in IMPLEMENTATIONS if name not in lacking]
    if (lacking and not options.allow_missing) or not set(names) & set(BACKENDS):
        console.print("Install them; or pass --allow-missing if one backend is there.")
        return 1
    results = orthogonalized(
        names, options.schedules, options.compressed, options.device
    )
    for dtype in DTYPES:
        _print_pairs(console, results, dtype)
    console.print(case_table(results, options.schedules, "float32"))
    console.print(compressed_table(results, options.compressed))
    problems = exceeded(results, options.compressed)
    sizes = (options.steps, options.width, options.layers)
    after, before = stepped(names, *sizes, options.device)
    differences = worst(after, before)
    if not differences.max() <= STEP_LIMIT:
        problems.append(f"after {options.steps} steps: {short(differences.max())}")
    title = (
        f"parameters after {options.steps} steps of Muon with AdamW, limit "
        f"{short(STEP_LIMIT)}\n{sum(v.size for v in before.values()):,} parameters in "
        f"{len(before)} variables, each moved by {moved(after, before):.2f} or more"
    )
    console.print(pair_table(title, list(after), differences))
    options.folder.mkdir(exist_ok=True)
    save_heat_map(options.folder / "equivalence.png", results, options.schedules)
    rest = {"missing": lacking, "steps": steps_as_json(after, before)}
    path = options.folder / "equivalence.json"
    rest |= {"problems": problems}
    save_json(path, results, options.schedules, options.compressed, rest)
    console.print(f"Heat map and JSON: {options.folder.resolve()}", soft_wrap=True)
    for problem in problems:
        console.print(f"[red]not equivalent: {problem}[/]")
    return 1 if problems else 0


def _print_pairs(console: Console, results: dict, dtype: str) -> None:
    names = [key(dtype, "jordan", case) for case in CASES]
    title = (
        f"jordan, {dtype}: largest difference of any entry over {len(names)} cases, "
        f"limit {short(LIMITS[dtype])}"
    )
    console.print(pair_table(title, list(results), worst(results, names)))


if __name__ == "__main__":
    raise SystemExit(main())
