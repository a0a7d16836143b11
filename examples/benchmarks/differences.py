"""Largest differences between implementations, over cases and between pairs."""

import filecmp
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import whole_step
from cases import (
    CASES,
    COMPRESSED_CASES,
    COMPRESSED_NEARLY_EMPTY,
    COMPRESSED_SCHEDULE,
    DTYPES,
    compressed_inputs,
    inputs,
)
from implementations import BACKENDS, key
from processes import run_worker

Results = dict[str, dict[str, np.ndarray]]

# What the pairs may differ by in an entry, for the schedule `jordan`. Seen: 2.3e-6 in
# float32, 4.7e-14 in float64, and 4.0e-7 after 50 steps.
LIMITS = {"float32": 5e-6, "float64": 1e-12}
STEP_LIMIT = 2e-5

# The same for `auto` with compression; seen 7.4e-6 and 2.7e-14. Steps that share a Gram
# matrix amplify its rounding. In directions that a matrix lacks, rounding is a rest of
# the update, and three steps make 1e-3 (`leading.SMALLEST_REST`) as large as the values
# they serve: a thousand times the rounding of a product. Seen 2.5e-4 and 4.9e-13.
LIMITS_COMPRESSED = {"float32": 1e-5, "float64": 1e-12}
LIMITS_COMPRESSED_NEARLY_EMPTY = {"float32": 4e-4, "float64": 2e-12}


def limit(dtype: str, case: str) -> float:
    """Return what a pair may differ by in a case."""
    if case in COMPRESSED_NEARLY_EMPTY:
        return LIMITS_COMPRESSED_NEARLY_EMPTY[dtype]
    if case in COMPRESSED_CASES:
        return LIMITS_COMPRESSED[dtype]
    return LIMITS[dtype]


def keys_with_limits(dtype: str, compressed: Iterable[str]) -> dict[str, str]:
    """Return the names of the results that must agree, and the case of each.

    Args:
        dtype: `"float32"` or `"float64"`.
        compressed: Which of `COMPRESSED_CASES` there are.
    """
    found = {key(dtype, "jordan", case): case for case in CASES}
    return found | {key(dtype, COMPRESSED_SCHEDULE, case): case for case in compressed}


def pairwise(results: Results, name: str) -> np.ndarray:
    """Return the largest differences of one result between all implementations.

    Args:
        results: Arrays by implementation and name of the result.
        name: Which result.

    Returns:
        A symmetric matrix in the order of `results`; not a number where one is not.
    """
    stack = np.stack([arrays[name].astype("float64") for arrays in results.values()])
    with np.errstate(invalid="ignore"):  # infinity less infinity is not a number
        differences = [np.abs(stack - one).reshape(len(stack), -1) for one in stack]
    return np.array([difference.max(axis=1) for difference in differences])


def worst(results: Results, names: Iterable[str]) -> np.ndarray:
    """Return the entrywise maximum of `pairwise` over results."""
    return np.max([pairwise(results, name) for name in names], axis=0)


def orthogonalized(
    names: Sequence[str],
    schedules: Sequence[str],
    compressed: Sequence[str],
    device: str = "cpu",
) -> Results:
    """Return what every implementation makes of every case.

    Args:
        names: Implementations.
        schedules: Names of schedules, for the cases that are not compressed.
        compressed: Which of `COMPRESSED_CASES` to add.
        device: `"cpu"` or `"auto"`.
    """
    arrays = {
        key(dtype, schedule, case): x
        for dtype in DTYPES
        for case, x in inputs(dtype).items()
        for schedule in schedules
    }
    arrays |= {
        key(dtype, COMPRESSED_SCHEDULE, case): x
        for dtype in DTYPES
        for case, x in compressed_inputs(dtype).items()
        if case in compressed
    }
    results = {}
    with tempfile.TemporaryDirectory() as room:
        given = Path(room) / "inputs.npz"
        np.savez(given, **arrays)
        for name in names:
            answer = Path(room) / f"{name}.npz"
            run_worker("implementations.py", name, given, answer, device=device)
            results[name] = dict(np.load(answer))
    return results


def stepped(
    names: Sequence[str], steps: int, width: int, layers: int, device: str = "cpu"
) -> tuple[Results, dict[str, np.ndarray]]:
    """Return the parameters after `steps` steps by implementation, and before them.

    The first backend's export runs on ONNX Runtime; those of the others must be the
    same files.

    Args:
        names: Implementations; those that are no backends of Keras are left out.
        steps: Number of steps.
        width: Width of the model.
        layers: Number of its blocks.
        device: `"cpu"` or `"auto"`.
    """
    backends = [name for name in names if name in BACKENDS]
    results = {}
    with tempfile.TemporaryDirectory() as room:
        folders = {backend: Path(room) / backend for backend in backends}
        sizes = ("--steps", steps, "--width", width, "--layers", layers)
        for backend, folder in folders.items():
            run_worker("whole_step.py", backend, folder, *sizes, device=device)
            results[backend] = dict(np.load(folder / "after.npz"))
        first = folders[backends[0]]
        before = dict(np.load(first / "before.npz"))
        for folder in folders.values():
            _require_equal(first / "step", folder / "step")
        if "onnxruntime" in names:
            results["onnxruntime"] = whole_step.by_onnxruntime(
                first / "step", before, steps, device
            )
    return results, before


def exceeded(results: Results, compressed: Iterable[str]) -> list[str]:
    """Return the results whose pairs differ by more than they may, in words.

    Schedules without a limit must be finite.
    """
    compressed = list(compressed)
    limited = {n for dtype in DTYPES for n in keys_with_limits(dtype, compressed)}
    found = [
        f"{name}: not a number"
        for name in next(iter(results.values()))
        if name not in limited and not np.isfinite(pairwise(results, name)).all()
    ]
    for dtype in DTYPES:
        for name, case in keys_with_limits(dtype, compressed).items():
            largest = pairwise(results, name).max()
            # Written so that what is not a number exceeds it too.
            if not largest <= limit(dtype, case):
                found.append(f"{dtype}, {case}: {largest:.1e}")
    return found


def _require_equal(folder: Path, other: Path) -> None:
    compared = filecmp.dircmp(folder, other)
    names = compared.common_files
    _, differ, errors = filecmp.cmpfiles(folder, other, names, shallow=False)
    different = compared.left_only + compared.right_only + differ + errors
    if different:
        raise RuntimeError(f"The exports of two backends differ in {different}.")
