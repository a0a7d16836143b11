"""The matrices that Newton-Schulz receives in real training, kept as arrays.

    >>> for name, update in captured(SMALL[1]).items():
    ...     print(name, update.shape)

A model is trained by `Muon(schedule="jordan")`. At some steps the update U = G + mu M
of every hidden matrix is read off the momentum before and after the step, in the
matrix view of its route: (fan_in, fan_out), or (batch, fan_in, fan_out).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import keras
import numpy as np
from captures_models import (
    Batch,
    convnet,
    digits_batches,
    quickstart,
    vit,
    wide_convnet,
)
from keras import ops

from keras_muon import Muon
from keras_muon.kernels import to_matrices
from keras_muon.momentum import nesterov_update

SEED = 0
MOMENTUM = 0.9
TEXT_RATE = 6e-3  # the quickstart's
DIGITS_RATE = 3e-3


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is trained, and when its updates are captured.

    Args:
        source: Name of the model, the first part of its captures' names.
        build: Returns the model.
        batches: Returns its endless training batches.
        stops: Steps whose updates are captured, rising, counted from 1.
        rate: Learning rate.
    """

    source: str
    build: Callable[[], keras.Model]
    batches: Callable[[], Iterator[Batch]]
    stops: tuple[int, ...]
    rate: float


def gpt_recipe(
    width: int, layers: int, heads: int, stops: tuple[int, ...], batch: int = 16
) -> Recipe:
    """Return the recipe of the quickstart's GPT at some width.

    Args:
        width: Of the model.
        layers: Number of its blocks.
        heads: Attention heads of a block.
        stops: See `Recipe`.
        batch: Sequences of 64 bytes per batch.
    """
    context = 64
    return Recipe(
        f"gpt{width}",
        lambda: quickstart().build_gpt(width, layers, heads, context),
        lambda: quickstart().Text(context, batch).batches(),
        stops,
        TEXT_RATE,
    )


def digits_recipe(
    source: str,
    build: Callable[[], keras.Model],
    stops: tuple[int, ...],
    batch: int = 64,
) -> Recipe:
    """Return the recipe of a model that learns scikit-learn's digits.

    Args:
        source: See `Recipe`.
        build: Returns the model.
        stops: See `Recipe`.
        batch: Images per batch.
    """
    return Recipe(
        source, build, lambda: digits_batches(SEED, batch), stops, DIGITS_RATE
    )


FULL = (
    gpt_recipe(128, 2, 4, (10, 50, 250)),
    gpt_recipe(256, 3, 8, (60,)),
    gpt_recipe(512, 2, 8, (40, 150), batch=8),
    digits_recipe("convnet", convnet, (20, 200)),
    digits_recipe("vit", vit, (20, 200)),
    # The default compresses matrices of 384 rows or more, and those of 768 most.
    digits_recipe("convnet384", lambda: wide_convnet(384), (10, 60), batch=32),
    digits_recipe("vit384", lambda: vit(384, 6), (10, 60), batch=32),
    gpt_recipe(768, 1, 12, (30,), batch=8),
)

# Less than half a minute on any backend: no step is late, no matrix is large.
SMALL = (
    gpt_recipe(64, 2, 4, (10, 30), batch=8),
    digits_recipe("convnet", convnet, (10, 30), batch=32),
    digits_recipe("vit", vit, (10, 30), batch=32),
)


@functools.cache
def captured(recipe: Recipe) -> dict[str, np.ndarray]:
    """Train a model and return the updates of its hidden matrices at each stop.

    Args:
        recipe: What is trained, and when its updates are captured.

    Returns:
        float32 arrays, read-only, by names as "gpt128/step250/attention_0/query".
        Kept in memory: the same recipe is trained once.

    Example:
        >>> updates = captured(digits_recipe("convnet", convnet, (2,)))
        >>> updates["convnet/step2/dense"].shape
        (1024, 64)

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon, for U.
    """
    keras.utils.set_random_seed(SEED)
    model, batches = _compiled(recipe), recipe.batches()
    updates: dict[str, np.ndarray] = {}
    for step, batch in zip(range(1, recipe.stops[-1] + 1), batches, strict=False):
        before = _momenta(model.optimizer) if step in recipe.stops else {}
        model.train_on_batch(*batch)
        for path, update in _updates(model.optimizer, before).items():
            updates[f"{recipe.source}/step{step}/{path}"] = update
    return updates


def _compiled(recipe: Recipe) -> keras.Model:
    model = recipe.build()
    optimizer = Muon.for_model(
        model,
        learning_rate=recipe.rate,
        momentum=MOMENTUM,
        weight_decay=0.1,
        schedule="jordan",
    )
    # Built now, so that there is a momentum before the first step.
    optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    return model


def _momenta(optimizer: Muon) -> dict[int, np.ndarray]:
    return {
        index: np.array(ops.convert_to_numpy(optimizer.state_of(index)[0]))
        for index, route in enumerate(optimizer.routes)
        if route.rule == "muon"
    }


def _updates(optimizer: Muon, before: dict[int, np.ndarray]) -> dict[str, np.ndarray]:
    """U of every matrix in its view; G is what the momentum gained in the step.

    Float32 returns G with an error of about 1e-7 of the momentum, as the gradient has
    itself.
    """
    after = _momenta(optimizer) if before else {}
    updates = {}
    for index, momentum in after.items():
        route = optimizer.routes[index]
        gradient = momentum - np.float32(MOMENTUM) * before[index]
        update, _ = nesterov_update(
            gradient, before[index], momentum=MOMENTUM, nesterov=True
        )
        matrices = to_matrices(ops.convert_to_tensor(update), route.matrix_view)
        # Of most layers the path ends so; what is left says enough.
        name = route.path.removesuffix("/kernel")
        updates[name] = np.array(ops.convert_to_numpy(matrices))
        updates[name].flags.writeable = False
    return updates
