"""Shapes of the hidden matrices of known models, layer by layer, as (in, out)."""

from collections.abc import Callable

Shape = tuple[int, int]

# name: number of layers, and the hidden matrices of the layer of this number
MODELS: dict[str, tuple[int, Callable[[int], list[Shape]]]] = {
    "gpt2": (12, lambda layer: _transformer(768)),
    "llama": (30, lambda layer: _llama()),
    "vit": (12, lambda layer: _transformer(384)),
    "resnet50": (16, lambda layer: _bottleneck(layer)),
    "small": (18, lambda layer: _small()),
    "tiny": (1, lambda layer: [(32, 32), (32, 64), (64, 32)]),
}

SOURCES = {
    "gpt2": "GPT-2 small; queries, keys and values apart, as Keras stores them",
    "llama": "SmolLM2-135M, a Llama: gated feed-forward, 3 heads of keys for 9",
    "vit": "ViT-S/16; queries, keys and values apart",
    "resnet50": "ResNet-50's blocks; kernels h x w x in x out as (h w in) x out",
    "small": "matrices of 32 to 128",
    "tiny": "what --quick and the tests use",
}


def shapes_of(model: str, layers: int | None = None) -> list[Shape]:
    """Return the shapes of a model's hidden matrices, in the order of its layers.

    Args:
        model: A name in `MODELS`.
        layers: How many of its first layers. None takes all.

    Raises:
        ValueError: If the model has fewer layers.

    Example:
        >>> shapes_of("vit", layers=1)[-2:]
        [(384, 1536), (1536, 384)]
    """
    known, layer_of = MODELS[model]
    count = known if layers is None else layers
    if not 1 <= count <= known:
        raise ValueError(f"`layers` must be 1 to {known} for {model}; got {layers}.")
    return [shape for layer in range(count) for shape in layer_of(layer)]


def _transformer(width: int) -> list[Shape]:
    return [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]


def _llama(width: int = 576, keys: int = 192, inner: int = 1536) -> list[Shape]:
    attention = [(width, width), (width, keys), (width, keys), (width, width)]
    return [*attention, (width, inner), (width, inner), (inner, width)]


def _bottleneck(block: int) -> list[Shape]:
    """Return the kernels of one of 3 + 4 + 6 + 3 blocks; the first of a stage has four.

    Source: He et al. 2016, arXiv:1512.03385, table 1.
    """
    stage = sum(block >= start for start in (3, 7, 13))
    width, first = 64 * 2**stage, block in (0, 3, 7, 13)
    given = (64 if stage == 0 else 2 * width) if first else 4 * width
    shortcut = [(given, 4 * width)] if first else []
    return [(given, width), (9 * width, width), (width, 4 * width), *shortcut]


def _small() -> list[Shape]:
    return [(32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 64), (64, 32)]
