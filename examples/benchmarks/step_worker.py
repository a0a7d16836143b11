"""The process of one backend, whose contenders take turns, for `optimizer_step.py`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from carriers import JaxStep, carrier
from contenders import Contender, contender, direction, is_muon, names_on
from interleaving import interleaved, seconds_of
from products import FORMS, product_flops, products
from step_inputs import gradient, read_inputs
from workers import Options, answered

# No model has matrices of this shape.
WAKING = (8, 12)


def measured(backend: str, options: Options) -> dict[str, Any]:
    """Return all that is measured in this process.

    Args:
        backend: The one that Keras runs on.
        options: `inputs`, `shapes`, `rounds`, `turn` and `jit`.
    """
    jit, carrying = options["jit"], carrier(backend, options["jit"])
    gradients, polars = read_inputs(options["inputs"], options["shapes"])
    _wake(backend, jit)
    rows, steps, dtypes = {}, {}, {}
    for name in names_on(backend):
        one = contender(name, backend, gradients, jit)
        rows[name] = _first_step(one, polars)
        steps[name], dtypes[one.dtype] = one.step, None
    peaks = {
        f"{dtype}, {form}": products(gradients, dtype, form, carrying)
        for dtype in dtypes
        for form in FORMS
    }
    times = interleaved({**steps, **peaks}, options["rounds"], options["turn"])
    for name, row in rows.items():
        row["seconds"] = times[name]
        row["temporary bytes"] = _planned(steps[name])
    return {
        "contenders": rows,
        "products": {name: times[name] for name in peaks},
        "product flops": product_flops(gradients),
        "momentum bytes": sum(g.nbytes for g in gradients),
        "jit": jit,
    }


def _wake(backend: str, jit: bool) -> None:
    """Let every contender step once on another shape.

    What a process prepares once, or imports late, is not in anyone's first call.
    """
    for name in names_on(backend):
        # Two: a stack goes through other parts of a compiler than one matrix.
        contender(name, backend, [gradient(WAKING, 0)] * 2, jit).step()


def _first_step(one: Contender, polars: Sequence[np.ndarray]) -> dict[str, Any]:
    """Take the first step: how long it took, and how orthogonal what it moved is."""
    seconds = seconds_of(one.step)
    errors = None
    if is_muon(one.name):
        moved = map(direction, one.step.weights())
        errors = [_distance(*pair) for pair in zip(moved, polars, strict=True)]
    return {
        "first call seconds": seconds,
        "orthogonality errors": errors,
        "state bytes": one.step.state_bytes(),
        "flops": one.flops,
        "dtype": one.dtype,
    }


def _distance(actual: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(actual - wanted) / np.linalg.norm(wanted))


def _planned(step: Any) -> int | None:
    return step.temporary_bytes() if isinstance(step, JaxStep) else None


if __name__ == "__main__":
    answered(measured)
