"""Real architectures, small and with random weights, and what Muon owes to each.

Every entry says by hand, from the paper of the architecture, which variables are hidden
matrices and of which batch, fan-in and fan-out; all others have the reason why not.
This file imports nothing of keras_muon.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np


class Matrix(NamedTuple):
    """A hidden matrix: number of independent maps, entries read, entries written."""

    batch: int
    fan_in: int
    fan_out: int


class Case(NamedTuple):
    """A built model and one batch for it.

    `expected` leads from regular expressions, of whole paths, to a `Matrix` or to the
    reason for AdamW. Each variable matches one of them, and each of them a variable.
    """

    model: keras.Model
    inputs: Any
    targets: Any
    loss: Any
    expected: dict[str, Matrix | str]


# What no architecture treats as a matrix.
BIASES = {".*/bias": "bias"}
LAYER_NORMS = {".*norm.*/gamma": "gain", ".*norm.*/beta": "shift"}
SCALES = {".*norm.*/scale": "gain"}

CLASSES = 5

RANDOM_INITIALIZERS = (
    keras.initializers.Orthogonal,
    keras.initializers.RandomNormal,
    keras.initializers.RandomUniform,
    keras.initializers.TruncatedNormal,
    keras.initializers.VarianceScaling,
)


def matrix(fan_in: int, fan_out: int, batch: int = 1) -> Matrix:
    return Matrix(batch, fan_in, fan_out)


def from_logits() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def random_tokens(vocabulary: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, vocabulary, shape).astype("int32")


def random_images(count: int, size: int) -> np.ndarray:
    shape = (count, size, size, 3)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@contextlib.contextmanager
def recorded_weights() -> Iterator[dict[int, keras.Layer]]:
    """Note which layer adds each variable, as {id(variable): layer}.

    Random weights are drawn by NumPy: Keras' own draws cost JAX a compilation per
    shape.
    """
    add_weight = keras.Layer.add_weight
    rng = np.random.default_rng(20241204)
    owners = {}

    @functools.wraps(add_weight)
    def add_recorded_weight(self, shape=None, initializer=None, *args, **kwargs):
        given = keras.initializers.get(initializer or "glorot_uniform")
        if isinstance(given, RANDOM_INITIALIZERS):
            initializer = functools.partial(_lecun_normal, rng)
        variable = add_weight(self, shape, initializer, *args, **kwargs)
        owners[id(variable)] = self
        return variable

    keras.Layer.add_weight = add_recorded_weight
    try:
        yield owners
    finally:
        keras.Layer.add_weight = add_weight


def _lecun_normal(rng, shape, dtype=None):
    fan_in = max(1, int(np.prod(shape[:-1])))
    return rng.normal(scale=fan_in**-0.5, size=shape).astype("float32")
