"""What a graph should return, in float64 NumPy, by other formulas than the graph's.

Newton-Schulz is a polynomial on singular values, so nothing is iterated here: the
values are mapped, and the matrix is put together again. The steps are the textbooks'.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_muon.admissible import Triple
from keras_muon.export.arguments import checked_triples
from keras_muon.schedules import get_schedule

Arrays = Mapping[str, np.ndarray]
Specification = Mapping[str, Any]


def expected_outputs(specification: Specification, inputs: Arrays) -> list[np.ndarray]:
    """Return the outputs that a specification promises, in the order of the graph.

    Args:
        specification: What `specification_of` returned.
        inputs: Arrays by name of the graph's inputs, of any dtype.

    Returns:
        Arrays in float64.

    Example:
        >>> spec = {"kind": "newton_schulz", "schedule": "quintic", "steps": 10}
        >>> (polar,) = expected_outputs(spec, {"update": np.diag([3.0, 0.3])})
        >>> np.round(polar, 6).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    wide = {name: np.asarray(array, np.float64) for name, array in inputs.items()}
    return _ORACLES[specification["kind"]](specification, wide)


def polar_factor(matrices: np.ndarray, triples: Sequence[Triple]) -> np.ndarray:
    """Return U p(S / |S|) V^T, with p the odd polynomials one after the other.

    Args:
        matrices: Matrices on the last two axes.
        triples: One (a, b, c) per step.

    Returns:
        An array of the same shape; zeros where a matrix is zero.
    """
    u, s, vt = np.linalg.svd(matrices, full_matrices=False)
    norm = np.sqrt((s**2).sum(axis=-1, keepdims=True))
    s = np.divide(s, norm, out=np.zeros_like(s), where=norm > 0)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return (u * s[..., None, :]) @ vt


def _newton_schulz(specification: Specification, inputs: Arrays) -> list[np.ndarray]:
    return [polar_factor(inputs["update"], _triples(specification))]


def _muon_step(specification: Specification, inputs: Arrays) -> list[np.ndarray]:
    """Jordan et al. 2024, with the decoupled decay of Liu et al. 2025."""
    gradient, mu = inputs["gradient"], specification["momentum"]
    momentum = mu * inputs["momentum"] + gradient
    update = gradient + mu * momentum if specification["nesterov"] else momentum
    change = _size(specification) * polar_factor(update, _triples(specification))
    return [_moved(inputs, change), momentum]


def _adamw_step(specification: Specification, inputs: Arrays) -> list[np.ndarray]:
    """Loshchilov and Hutter 2019, algorithm 2.

    Keras adds epsilon before the second moment is corrected, so the corrected root
    sees more of it.
    """
    beta_1, beta_2 = specification["beta_1"], specification["beta_2"]
    gradient, step = inputs["gradient"], inputs["step"]
    first = beta_1 * inputs["momentum"] + (1 - beta_1) * gradient
    second = beta_2 * inputs["velocity"] + (1 - beta_2) * gradient**2
    seen = 1 - beta_2**step
    root = np.sqrt(second / seen) + specification["epsilon"] / np.sqrt(seen)
    return [_moved(inputs, first / (1 - beta_1**step) / root), first, second]


def _moved(inputs: Arrays, change: np.ndarray) -> np.ndarray:
    decay = inputs["weight_decay"] * inputs["parameter"]
    return inputs["parameter"] - inputs["learning_rate"] * (change + decay)


def _size(specification: Specification) -> float:
    """The factor of a polar factor, from what each scaling promises of it."""
    fan_in, fan_out = specification["shape"]
    # Root mean square of the entries of an orthogonal matrix of this shape.
    entry = 1.0 / math.sqrt(max(fan_in, fan_out))
    return {
        "naive": 1.0,
        "original": max(1.0, math.sqrt(fan_out / fan_in)),
        "mup": math.sqrt(fan_out / fan_in),
        "moonlight": specification["rms"] / entry,
    }[specification["scaling"]]


def _triples(specification: Specification) -> tuple[Triple, ...]:
    return checked_triples(
        get_schedule(specification["schedule"]), specification["steps"]
    )


_ORACLES: dict[str, Callable[[Specification, Arrays], list[np.ndarray]]] = {
    "newton_schulz": _newton_schulz,
    "muon_step": _muon_step,
    "adamw_step": _adamw_step,
}
