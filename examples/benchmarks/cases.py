"""Matrices that are hard on Newton-Schulz in different ways, and the exact answer."""

from collections.abc import Sequence

import numpy as np

SEED = 20241204
DTYPES = ("float32", "float64")

# name: shape, singular values of each matrix (None: those of normal noise), scale
CASES = {
    "square": ((96, 96), None, 1.0),
    "wide": ((48, 128), None, 1.0),
    "tall": ((128, 48), None, 1.0),
    "row": ((1, 64), None, 1.0),
    "batched wide": ((4, 48, 96), None, 1.0),
    "batched tall": ((4, 96, 48), None, 1.0),
    "large": ((256, 768), None, 1.0),
    "condition 2": ((64, 96), np.linspace(1.0, 0.5, 64), 1.0),
    "condition 1e4": ((64, 96), np.geomspace(1.0, 1e-4, 64), 1.0),
    "rank 32 of 64": ((64, 96), np.arange(64) < 32, 1.0),
    "tiny, 1e-30": ((64, 96), None, 1e-30),
    "huge, 1e30": ((64, 96), None, 1e30),
    "zero": ((32, 48), None, 0.0),
    "condition 1e6": ((64, 96), np.geomspace(1.0, 1e-6, 64), 1.0),
    "batched rank 8": ((4, 96, 48), np.arange(48) < 8, 1.0),
    "rank 1 of 64": ((64, 96), np.arange(64) < 1, 1.0),
}

# The same for the schedule `auto` as the optimizer plans it: from 384 rows on, leading
# singular values are compressed, and steps of wide matrices share a Gram matrix.
COMPRESSED_CASES = {
    "compressed square, condition 2": ((384, 384), np.linspace(1.0, 0.5, 384), 1.0),
    "compressed wide, condition 2": ((384, 1152), np.linspace(1.0, 0.5, 384), 1.0),
    "compressed wide, 20 of 50": ((384, 1152), 1.0 + 49.0 * (np.arange(384) < 20), 1.0),
    "compressed square, rank 32": ((384, 384), np.arange(384) < 32, 1.0),
    "compressed wide, rank 32": ((384, 1152), np.arange(384) < 32, 1.0),
}
COMPRESSED_SCHEDULE = "auto"

# Of these, those with directions that a matrix lacks.
COMPRESSED_NEARLY_EMPTY = ("compressed square, rank 32", "compressed wide, rank 32")


def inputs(dtype: str) -> dict[str, np.ndarray]:
    """Return the input of every case; the same values in both dtypes, but for rounding.

    Args:
        dtype: `"float32"` or `"float64"`.
    """
    return _inputs(CASES, dtype)


def compressed_inputs(dtype: str) -> dict[str, np.ndarray]:
    """Return the input of every case that is compressed, as `inputs` does."""
    return _inputs(COMPRESSED_CASES, dtype)


def polar_by_svd(
    x: np.ndarray, triples: Sequence[tuple[float, float, float]]
) -> np.ndarray:
    """Return U p(S / |S|) V^T in float64, p the polynomial of the schedule.

    No matrix is multiplied by itself, so this shares no rounding with the iteration.

    Args:
        x: Matrices in the last two axes.
        triples: One (a, b, c) per step.
    """
    u, s, vt = np.linalg.svd(x.astype("float64"), full_matrices=False)
    norm = np.linalg.norm(s, axis=-1, keepdims=True)
    s = np.divide(s, norm, out=np.zeros_like(s), where=norm > 0)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return (u * s[..., None, :]) @ vt


def _inputs(cases: dict[str, tuple], dtype: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(SEED)
    return {
        name: (scale * _matrices(generator, shape, spectrum)).astype(dtype)
        for name, (shape, spectrum, scale) in cases.items()
    }


def _matrices(
    generator: np.random.Generator, shape: tuple[int, ...], spectrum: np.ndarray | None
) -> np.ndarray:
    noise = generator.standard_normal(shape)
    if spectrum is None:
        return noise
    u, _, vt = np.linalg.svd(noise, full_matrices=False)
    return (u * spectrum) @ vt
