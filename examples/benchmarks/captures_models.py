"""Three small models of different kinds, and the data that they learn from.

Together they have every kind of layer whose kernels Muon orthogonalizes: dense,
attention, einsum, convolutions (plain, grouped, separable, pointwise), GRU and LSTM.
"""

import functools
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
from keras import layers, ops

Batch = tuple[np.ndarray, np.ndarray]

DIGITS_TO_TRAIN = 1400  # of 1797
CLASSES = 10


@functools.cache
def quickstart() -> ModuleType:
    """Return the quickstart as a module, for its GPT and its text.

    It reads the command line when it is imported; here that is not its own.
    """
    path = Path(__file__).parent.parent / "quickstart.py"
    spec = importlib.util.spec_from_file_location("quickstart", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    given, sys.argv = sys.argv, [str(path)]
    try:
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    finally:
        sys.argv = given
    return module


def digits_batches(seed: int, size: int = 64) -> Iterator[Batch]:
    """Yield the same endless sequence of training batches for the same seed.

    Args:
        seed: Of the choice of images.
        size: Images per batch.
    """
    images, labels = _digits()
    generator = np.random.default_rng(seed)
    while True:
        chosen = generator.integers(0, DIGITS_TO_TRAIN, size)
        yield images[chosen], labels[chosen]


def digits_validation() -> Batch:
    """Return the images that training never sees."""
    images, labels = _digits()
    return images[DIGITS_TO_TRAIN:], labels[DIGITS_TO_TRAIN:]


@functools.cache
def _digits() -> Batch:
    """Images (8, 8, 1) between 0 and 1 in mixed order: writers come in blocks."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order, :, :, None] / 16.0).astype("float32")
    return images, digits.target[order].astype("int32")


def convnet() -> keras.Model:
    """Return a network of all kinds of convolutions for 8x8 images."""
    images = keras.Input((8, 8, 1))
    same = {"padding": "same", "activation": "relu"}
    x = layers.Conv2D(32, 3, name="conv_a", **same)(images)
    x = layers.Conv2D(48, 3, name="conv_b", **same)(x)
    x = layers.SeparableConv2D(96, 3, name="separable", **same)(x)
    x = layers.MaxPooling2D()(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2D(192, 1, name="pointwise", **same)(x)
    x = layers.Conv2D(64, 3, groups=2, name="grouped", **same)(x)
    x = layers.Dense(64, "relu", name="dense")(layers.Flatten()(x))
    return keras.Model(images, layers.Dense(CLASSES, name="head")(x))


def wide_convnet(width: int) -> keras.Model:
    """Return a network for 8x8 images whose kernels are wide, all but the first.

    Args:
        width: Channels of every layer.
    """
    images = keras.Input((8, 8, 1))
    same = {"padding": "same", "activation": "relu"}
    x = layers.Conv2D(width, 3, name="conv_a", **same)(images)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(width, 3, name="conv_b", **same)(x)
    x = layers.Conv2D(width, 3, name="conv_c", **same)(x)
    x = layers.Conv2D(width, 1, name="pointwise", **same)(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Dense(width, "relu", name="dense")(layers.Flatten()(x))
    return keras.Model(images, layers.Dense(CLASSES, name="head")(x))


def vit(width: int = 64, heads: int = 4) -> keras.Model:
    """Return two attention blocks on 2x2 patches, read out by a GRU and an LSTM.

    Args:
        width: Width of a patch's vector.
        heads: Attention heads.
    """
    images = keras.Input((8, 8, 1))
    x = layers.Conv2D(width, 2, strides=2, name="patches")(images)
    x = layers.Reshape((16, width))(x)
    # Made from the input, so that the layer that embeds them is part of the model.
    positions = ops.cumsum(ops.ones_like(x[..., 0], dtype="int32"), axis=-1) - 1
    x = x + layers.Embedding(16, width, name="positions")(positions)
    for block, mixer in enumerate((_dense_mixer, _einsum_mixer)):
        y = layers.LayerNormalization(name=f"norm_{block}a")(x)
        attention = layers.MultiHeadAttention(
            heads, width // heads, name=f"attention_{block}"
        )
        x = x + attention(y, y)
        x = x + mixer(layers.LayerNormalization(name=f"norm_{block}b")(x), width)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.GRU(48, return_sequences=True, name="gru")(x)
    x = layers.LSTM(32, name="lstm")(x)
    return keras.Model(images, layers.Dense(CLASSES, name="head")(x))


def _dense_mixer(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    x = layers.Dense(4 * width, "gelu", name="expand")(x)
    return layers.Dense(width, name="contract")(x)


def _einsum_mixer(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    """The same width in four heads, as kernels of three axes."""
    x = layers.EinsumDense(
        "bnd,dhe->bnhe", (None, 4, width), activation="gelu", name="einsum_expand"
    )(x)
    return layers.EinsumDense("bnhe,hed->bnd", (None, width), name="einsum_contract")(x)
