"""Matrices with chosen spectra that are hard on Newton-Schulz in different ways."""

from collections.abc import Callable, Mapping

import numpy as np

SEED = 20241204

# The last two axes are in and out.
SHAPES = {
    "square": (128, 128),
    "1:4": (64, 256),
    "4:1": (256, 64),
    "16x64": (16, 64),
    "8x8": (8, 8),
    "batched": (3, 64, 96),
}

# Those that the default compresses, by bases of different shares.
LARGE_SHAPES = {"384": (384, 384), "384:1152": (384, 1152)} | {
    str(rows): (rows, rows) for rows in (512, 768)
}

# Where all steps after compression share a Gram matrix, in bfloat16 on torch too.
LONG_SHAPES = {"576:1152": (576, 1152), "768:1536": (768, 1536)}


def synthetic(shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> dict[str, np.ndarray]:
    """Return every kind of matrix in every shape; float32, the same every time.

    Args:
        shapes: By name; the last two axes are in and out.

    Returns:
        Arrays of shape (in, out) or (batch, in, out), by names as "rank 1, 8x8".

    Example:
        >>> synthetic()["orthogonal, 8x8"].shape
        (8, 8)
    """
    generator = np.random.default_rng(SEED)
    return {
        f"{kind}, {name}": make(generator, shape).astype("float32")
        for kind, make in KINDS.items()
        for name, shape in shapes.items()
    }


Generator = np.random.Generator
Shape = tuple[int, ...]
Spectrum = Callable[[int], np.ndarray]


def with_spectrum(spectrum: Spectrum) -> Callable[[Generator, Shape], np.ndarray]:
    """Return a maker of matrices with random singular vectors and these values.

    Args:
        spectrum: Returns the singular values, given how many there are.
    """

    def make(generator: Generator, shape: Shape) -> np.ndarray:
        noise = generator.standard_normal(shape)
        u, s, vt = np.linalg.svd(noise, full_matrices=False)
        return (u * spectrum(s.shape[-1])) @ vt

    return make


def _low_rank(count: int) -> np.ndarray:
    return (np.arange(count) < max(1, count // 16)).astype("float64")


def _gaussian(generator: Generator, shape: Shape) -> np.ndarray:
    return generator.standard_normal(shape)


def _heavy_tailed(generator: Generator, shape: Shape) -> np.ndarray:
    """Entries of Student's t with 1.5 degrees of freedom: no variance."""
    return generator.standard_t(1.5, shape)


def _huge_direction(generator: Generator, shape: Shape) -> np.ndarray:
    """A thousand in one direction, normal noise of norm about 1 in the others."""
    *_, fan_in, fan_out = shape
    noise = generator.standard_normal(shape) / (fan_in**0.5 + fan_out**0.5)
    return noise + 1000.0 / (fan_in * fan_out) ** 0.5


def _row_scales(generator: Generator, shape: Shape) -> np.ndarray:
    scales = np.geomspace(1.0, 100.0, shape[-2])
    return scales[:, None] * generator.standard_normal(shape)


def _outer_product(generator: Generator, shape: Shape) -> np.ndarray:
    """The gradient of a dense layer on one example: rank 1 as float32 rounds it."""
    *stack, fan_in, fan_out = shape
    column = generator.standard_normal((*stack, fan_in, 1))
    return column @ generator.standard_normal((*stack, 1, fan_out))


def _zero(generator: Generator, shape: Shape) -> np.ndarray:
    return np.zeros(shape)


KINDS: dict[str, Callable[[Generator, Shape], np.ndarray]] = {
    "condition 1e6": with_spectrum(lambda count: np.geomspace(1.0, 1e-6, count)),
    "rank m/16": with_spectrum(_low_rank),
    "rank 1": with_spectrum(lambda count: np.arange(count) < 1),
    "orthogonal": with_spectrum(np.ones),
    "heavy tails": _heavy_tailed,
    "gaussian": _gaussian,
    "power law": with_spectrum(lambda count: np.arange(1.0, count + 1) ** -1.5),
    "huge direction": _huge_direction,
    "row scales": _row_scales,
    "zero": _zero,
    "outer product": _outer_product,
}
