"""What a graph should return, in float64 NumPy, by other formulas than the graph's.

Newton-Schulz is a polynomial on singular values, so nothing is iterated here: the
values are mapped, and the matrix is put together again. Compression takes its sizes and
constants from the plan, and no formula from `keras_muon.compression`: rows are mixed by
a dense matrix, and the Schatten norm is that of singular values. The steps are the
textbooks'.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_muon.admissible import Triple
from keras_muon.export.iteration import Iteration
from keras_muon.leading import BASIS_TRIPLES, VALUE_TRIPLES, Signs
from keras_muon.plan import Leading

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
        >>> from keras_muon.export import newton_schulz, specification_of
        >>> spec = specification_of(newton_schulz((2, 2), schedule="quintic"))
        >>> (polar,) = expected_outputs(spec, {"update": np.diag([3.0, 0.3])})
        >>> np.round(polar, 6).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    wide = {name: np.asarray(array, np.float64) for name, array in inputs.items()}
    return _ORACLES[specification["kind"]](specification, wide)


def polar_factor(
    matrices: np.ndarray, triples: Sequence[Triple], schatten: int = 2
) -> np.ndarray:
    """Return U p(S / |S|) V^T, with p the odd polynomials one after the other.

    Args:
        matrices: Matrices on the last two axes.
        triples: One (a, b, c) per step.
        schatten: Which norm of the singular values; 2 is Frobenius'.

    Returns:
        An array of the same shape; zeros where a matrix is zero.
    """
    u, s, vt = np.linalg.svd(matrices, full_matrices=False)
    norm = np.linalg.norm(s, schatten, axis=-1, keepdims=True)
    s = np.divide(s, norm, out=np.zeros_like(s), where=norm > 0)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return (u * s[..., None, :]) @ vt


def compressed(matrices: np.ndarray, leading: Leading) -> np.ndarray:
    """Return wide matrices whose leading singular values are as large as the others.

    Args:
        matrices: Matrices on the last two axes, none larger than its transpose.
        leading: Sizes and constants.

    Returns:
        An array of the same shape, in units of the Frobenius norms.
    """
    norms = np.linalg.norm(matrices, axis=(-2, -1), keepdims=True)
    x = np.divide(matrices, norms, out=np.zeros_like(matrices), where=norms > 0)
    squares = x @ np.swapaxes(x, -1, -2)
    basis = polar_factor(squares @ _dense(leading.signs).T, BASIS_TRIPLES)
    inside = np.swapaxes(basis, -1, -2) @ x
    share = np.linalg.norm(inside, axis=(-2, -1), keepdims=True) ** 2
    size = np.sqrt((1.0 - share) / leading.others)
    size = np.maximum(size, leading.smallest_rest)
    return x + basis @ (size * polar_factor(inside, VALUE_TRIPLES) - inside)


def _dense(signs: Signs) -> np.ndarray:
    """The mixing of rows as one matrix, zero outside of each group."""
    blocks = np.array(signs, np.float64)
    count, mixtures, members = blocks.shape
    dense = np.zeros((count, mixtures, count, members))
    dense[np.arange(count), :, np.arange(count)] = blocks
    return dense.reshape(count * mixtures, count * members)


def _polar_factor(specification: Specification, update: np.ndarray) -> np.ndarray:
    iteration = Iteration.of(specification)
    leading = iteration.plan.leading if iteration.plan else None
    if leading is None:
        return polar_factor(update, iteration.triples)
    if update.shape[-2] > update.shape[-1]:
        turned = np.swapaxes(update, -1, -2)
        return np.swapaxes(_polar_factor(_turned(specification), turned), -1, -2)
    return polar_factor(compressed(update, leading), iteration.triples, schatten=8)


def _turned(specification: Specification) -> Specification:
    return {**specification, "shape": specification["shape"][::-1]}


def _newton_schulz(specification: Specification, inputs: Arrays) -> list[np.ndarray]:
    return [_polar_factor(specification, inputs["update"])]


def _muon_step(specification: Specification, inputs: Arrays) -> list[np.ndarray]:
    """Jordan et al. 2024, with the decoupled decay of Liu et al. 2025."""
    gradient, mu = inputs["gradient"], specification["momentum"]
    momentum = mu * inputs["momentum"] + gradient
    update = gradient + mu * momentum if specification["nesterov"] else momentum
    change = _size(specification) * _polar_factor(specification, update)
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


_ORACLES: dict[str, Callable[[Specification, Arrays], list[np.ndarray]]] = {
    "newton_schulz": _newton_schulz,
    "muon_step": _muon_step,
    "adamw_step": _adamw_step,
}
