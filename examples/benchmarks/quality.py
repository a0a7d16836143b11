"""Is a schedule at least as close to the exact polar factor as five Jordan steps?

    python examples/benchmarks/quality.py --backend torch
    python examples/benchmarks/quality.py --small --methods you polar_express:bfloat16

Asks on updates captured from the training of three kinds of models, and on synthetic
matrices of hard spectra. The exit code is 1 if a method breaks the contract: its mean
error is at most Jordan's in float32, and nowhere is it more than 5 % above.
"""

import argparse
import inspect
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from argument_types import file_to_write
from quality_measures import (
    BASELINE,
    SYNTHETIC,
    PolarFactor,
    Row,
    breaches,
    jordan_band,
)

# Its module does not import Keras, whose backend is chosen later.
from keras_muon.schedules import SCHEDULES

COMPUTE_DTYPES = ("auto", "float32", "bfloat16", "float16")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, or leave with a message."""
    parser = argparse.ArgumentParser(
        description="Compare schedules with five Jordan steps, by relative error.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backend", choices=("jax", "torch", "tensorflow"))
    parser.add_argument(
        "--methods",
        nargs="+",
        type=method,
        metavar="SCHEDULE[:DTYPE]",
        default=["default"],
        help="names of schedules, or 'default', with a dtype of the products",
    )
    parser.add_argument("--small", action="store_true", help="what the tests use")
    parser.add_argument(
        "--json", type=file_to_write, help="write every error to this file"
    )
    return parser.parse_args(arguments)


def method(text: str) -> str:
    """Return a method of `measured` as it is, if there is one of this name.

    Args:
        text: What stands on the command line.

    Raises:
        argparse.ArgumentTypeError: If the schedule or the dtype is unknown.

    Example:
        >>> method("you:bfloat16")
        'you:bfloat16'
    """
    schedule, _, dtype = text.partition(":")
    schedules = ("default", *SCHEDULES)
    if schedule not in schedules:
        known = ", ".join(schedules)
        raise argparse.ArgumentTypeError(f"{text!r}: the schedules are {known}.")
    if (dtype or "auto") not in COMPUTE_DTYPES:
        known = ", ".join(COMPUTE_DTYPES)
        raise argparse.ArgumentTypeError(f"{text!r}: the dtypes are {known}.")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; return the exit code."""
    options = parsed(arguments)
    # Keras reads its backend once, when it is imported, which happens below.
    if options.backend:
        os.environ["KERAS_BACKEND"] = options.backend
    os.environ.setdefault("KERAS_BACKEND", "jax")
    from quality_report import print_report, to_json

    methods = list(dict.fromkeys([*options.methods, BASELINE]))
    rows = measured(methods, options.small)
    problems = judged(rows, options.methods)
    print_report(rows, methods, problems, default_schedule())
    if options.json:
        content = {"rows": to_json(rows), "problems": problems}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if problems else 0


def measured(methods: Sequence[str], small: bool = False) -> list[Row]:
    """Return the errors on everything: captures of all models, synthetic matrices.

    Args:
        methods: "schedule" or "schedule:dtype"; "default" names no schedule.
        small: Whether to take the small captures.
    """
    from captures import FULL, SMALL, captured
    from captures_synthetic import LARGE_SHAPES, LONG_SHAPES, SHAPES, synthetic

    rows = []
    for recipe in SMALL if small else FULL:
        rows += measured_rows(recipe.source, captured(recipe), methods)
    matrices = synthetic(SHAPES if small else SHAPES | LARGE_SHAPES | LONG_SHAPES)
    return rows + measured_rows(SYNTHETIC, matrices, methods)


def measured_rows(
    source: str, updates: Mapping[str, np.ndarray], methods: Sequence[str]
) -> list[Row]:
    """Return a row per matrix; those of a batch are orthogonalized together.

    Args:
        source: Where they come from.
        updates: Arrays (in, out) or (batch, in, out) by name.
        methods: See `measured`.
    """
    rows = []
    for name, update in updates.items():
        results = {method: orthogonalized(update, method) for method in methods}
        for place, x in _matrices(update):
            exact = PolarFactor(x)
            errors = {m: exact.error(result[place]) for m, result in results.items()}
            entry = name + "".join(f"[{i}]" for i in place)
            rows.append(
                Row(source, entry, x.shape, exact.rank, exact.condition, errors)
            )
    return rows


def orthogonalized(update: np.ndarray, method: str) -> np.ndarray:
    """Return what `keras_muon.orthogonalize` makes of a matrix or a batch.

    Args:
        update: Array (in, out) or (batch, in, out).
        method: See `measured`.
    """
    import keras

    from keras_muon import orthogonalize

    schedule, _, dtype = method.partition(":")
    arguments: dict[str, Any] = {} if schedule == "default" else {"schedule": schedule}
    if dtype:
        arguments["compute_dtype"] = dtype
    return keras.ops.convert_to_numpy(orthogonalize(update, **arguments))


def judged(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    """Return in words every breach of the contract by any of these methods."""
    band = jordan_band(SCHEDULES["jordan"].take())
    return [text for method in methods for text in breaches(rows, method, band)]


def default_schedule() -> str:
    """Return the name of the schedule that `orthogonalize` takes by itself."""
    from keras_muon import orthogonalize

    return str(inspect.signature(orthogonalize).parameters["schedule"].default)


def _matrices(update: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    for place in np.ndindex(update.shape[:-2]):
        yield place, update[place]


if __name__ == "__main__":
    raise SystemExit(main())
