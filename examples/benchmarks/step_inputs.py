"""Gradients that look like momentum, and their exact polar factors."""

import collections
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from cases import SEED

Shape = tuple[int, int]

# Two different gradients per shape; a model with more matrices of it repeats them.
VARIANTS = 2
RANK = 16
# The largest singular values of the signal stand this far above those of the noise.
SIGNAL = 30.0


def gradient(shape: Shape, variant: int) -> np.ndarray:
    """Return a matrix of a few strong directions, which decay, in noise.

    Args:
        shape: (in, out).
        variant: Which of several.
    """
    generator = np.random.default_rng([SEED, *shape, variant])
    rank = min(RANK, *shape)
    left, right = (generator.standard_normal((n, rank)) for n in shape)
    strength = np.geomspace(SIGNAL, 1.0, rank) / np.sqrt(max(shape))
    noise = generator.standard_normal(shape)
    return (1e-3 * (noise + (left * strength) @ right.T)).astype("float32")


def polar(matrix: np.ndarray) -> np.ndarray:
    """Return U V^T of U S V^T, computed in float64 by LAPACK."""
    u, _, vt = np.linalg.svd(matrix.astype("float64"), full_matrices=False)
    return (u @ vt).astype("float32")


def gradients_of(shapes: Iterable[Shape]) -> list[np.ndarray]:
    """Return a gradient for each matrix, some of them equal."""
    return [gradient(*one) for one in _numbered(shapes)]


def write_inputs(path: Path, shapes: Iterable[Shape]) -> None:
    """Write the gradients of every distinct shape, and their polar factors."""
    arrays = {}
    for shape in dict.fromkeys(shapes):
        for variant in range(VARIANTS):
            matrix = gradient(shape, variant)
            arrays[_key("gradient", shape, variant)] = matrix
            arrays[_key("polar", shape, variant)] = polar(matrix)
    np.savez(path, **arrays)


def read_inputs(
    path: Path | str, shapes: Iterable[Shape]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return a gradient and its polar factor for each matrix of a model."""
    with np.load(path) as arrays:
        stored = dict(arrays)
    variants = _numbered(shapes)
    gradients = [stored[_key("gradient", *one)] for one in variants]
    return gradients, [stored[_key("polar", *one)] for one in variants]


def _numbered(shapes: Iterable[Shape]) -> list[tuple[Shape, int]]:
    """Return each shape with its variant; those of one shape alternate."""
    seen: collections.Counter = collections.Counter()
    numbered = []
    for fan_in, fan_out in shapes:
        shape = (fan_in, fan_out)
        numbered.append((shape, seen[shape] % VARIANTS))
        seen[shape] += 1
    return numbered


def _key(kind: str, shape: Shape, variant: int) -> str:
    return f"{kind} {shape[0]}x{shape[1]} {variant}"
