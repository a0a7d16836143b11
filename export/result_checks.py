"""The results of a graph on each runtime, against the oracle."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from keras_muon.export.check_row import Check, guarded
from keras_muon.export.extras import require_onnxruntime
from keras_muon.export.oracle import expected_outputs
from keras_muon.export.probes import Arrays, probes
from keras_muon.export.running import run

# Bounds of |result - oracle| / |oracle|, in Frobenius norms. Largest seen with normal
# entries, 1 x 1 to 768 x 3072, all schedules: 2.9e-6, 6.7e-15, 3.3e-3 and 2.2e-2.
BOUNDS = {"float32": 1e-5, "float64": 1e-13, "float16": 1e-2, "bfloat16": 6e-2}

# The same for planned graphs, whose steps share Gram matrices: those amplify rounding.
# Seen, 384 x 384 to 768 x 3072: 1.3e-5, 2.1e-14 and 4.1e-2 in bfloat16.
PLANNED_BOUNDS = BOUNDS | {"float32": 3e-5, "bfloat16": 1e-1}

# The same of a single row or column in float32. Its one singular value is 1, where the
# first step of Polar Express is 8.2 - 22.9 + 16.5, and no others even that out: 4.5e-5.
SINGLE_ROW_BOUND = 1e-4

# Multiplications m m n of a stack's matrices up to which the oracle's SVD is a matter
# of seconds. "auto" goes no further.
LARGEST_AUTOMATIC = 2**34


def result_checks(
    model: onnx.ModelProto, specification: Mapping[str, Any], verify: str
) -> list[Check]:
    """Return one row per runtime, each compared with the same oracle.

    Args:
        model: The model.
        specification: What it promises.
        verify: `"auto"`, `"none"`, or a key of `RUNTIMES`.
    """
    chosen = list(RUNTIMES) if verify == "auto" else [verify]
    oracle = functools.cache(lambda: _cases(model, specification))
    rows = []
    for runtime in chosen if verify != "none" else []:
        name, compute = RUNTIMES[runtime]
        reason = _left_out(runtime, specification) if verify == "auto" else None
        if reason:
            rows.append(Check(name, None, reason))
            continue
        bound = functools.partial(_bound, specification)
        compare = functools.partial(_compared, name, compute, model, oracle, bound)
        rows.append(guarded(name, compare))
    return rows


def _left_out(runtime: str, specification: Mapping[str, Any]) -> str | None:
    """Why "auto" leaves a runtime out, or None."""
    if _multiplications(specification) > LARGEST_AUTOMATIC:
        shape = "x".join(map(str, specification["shape"]))
        return f"{shape} takes minutes; name a runtime in --verify to do it"
    if runtime == "onnxruntime":
        try:
            require_onnxruntime()
        except ImportError as error:
            return str(error)
    return None


def _multiplications(specification: Mapping[str, Any]) -> int:
    """Of the oracle's SVD, about; 0 where extents are open or there is none."""
    sizes = [*specification["shape"], specification.get("batch") or 1]
    if specification["kind"] == "adamw_step" or any(isinstance(s, str) for s in sizes):
        return 0
    return math.prod(sizes) * min(sizes[:2])


def _cases(
    model: onnx.ModelProto, specification: Mapping[str, Any]
) -> list[tuple[Arrays, list[np.ndarray]]]:
    """Inputs, and what the oracle expects of them."""
    given = probes(model, specification)
    return [(inputs, expected_outputs(specification, inputs)) for inputs in given]


def _bound(specification: Mapping[str, Any]) -> float:
    planned = specification.get("method") == "planned"
    bounds = PLANNED_BOUNDS if planned else BOUNDS
    dtype = specification.get("emulate") or specification["dtype"]
    single = specification["kind"] != "adamw_step" and 1 in specification["shape"]
    return SINGLE_ROW_BOUND if single and dtype == "float32" else bounds[dtype]


def _compared(
    name: str,
    compute: Callable[[onnx.ModelProto, Arrays], Sequence[np.ndarray]],
    model: onnx.ModelProto,
    oracle: Callable[[], list[tuple[Arrays, list[np.ndarray]]]],
    largest: Callable[[], float],
) -> Check:
    cases, bound = oracle(), largest()
    errors = [
        relative_error(result, wanted)
        for inputs, expected in cases
        for result, wanted in zip(compute(model, inputs), expected, strict=True)
    ]
    # NumPy's: an error that is not a number is the largest, and fails.
    error = float(np.max(errors))
    shapes = ", ".join(_shown_shape(inputs) for inputs, _ in cases)
    return Check(name, error <= bound, f"float64 oracle, {shapes}", error, bound)


def relative_error(result: np.ndarray, expected: np.ndarray) -> float:
    """Return |result - expected| / |expected|, in Frobenius norms."""
    if result.shape != expected.shape:
        return math.inf
    norm = np.linalg.norm(expected.ravel())
    return float(np.linalg.norm((result - expected).ravel()) / norm)


def _shown_shape(inputs: Arrays) -> str:
    shape = next(iter(inputs.values())).shape
    return "x".join(map(str, shape)) or "scalar"


def by_reference(model: onnx.ModelProto, inputs: Arrays) -> list[np.ndarray]:
    """Return the outputs by the standard's own evaluator, which is NumPy."""
    return ReferenceEvaluator(model).run(None, inputs)


def by_onnxruntime(model: onnx.ModelProto, inputs: Arrays) -> Sequence[np.ndarray]:
    """Return the outputs by ONNX Runtime on the CPU."""
    results = run(model, *inputs.values(), device="cpu")
    return results if isinstance(results, tuple) else [results]


RUNTIMES: dict[str, tuple[str, Callable[..., Sequence[np.ndarray]]]] = {
    "reference": ("reference evaluator", by_reference),
    "onnxruntime": ("ONNX Runtime", by_onnxruntime),
}
