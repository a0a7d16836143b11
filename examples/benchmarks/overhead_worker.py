"""The process of a backend that trains in turns, for `training_overhead.py`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from carriers import carrier
from cases import SEED
from contenders import ADAMW, BUILT_IN, DECAY, OURS
from interleaving import interleaved
from whole_step import CONTEXT, TOKENS, gpt
from workers import Options, answered

# Small enough that every optimizer learns, and no weight becomes infinite.
RATE = 1e-3
# Its step is one multiplication and one subtraction per parameter: next to nothing.
PLAIN = "keras.optimizers.SGD"
RACING = (PLAIN, ADAMW, BUILT_IN, OURS)


def measured(backend: str, options: Options) -> dict[str, Any]:
    """Return seconds of whole training steps by optimizer.

    Args:
        backend: The one that Keras runs on.
        options: `width`, `layers`, `batch`, `rounds` and `turn`.
    """
    models = {name: _compiled(name, options) for name in RACING}
    wait = carrier(backend, jit=True).wait
    steps = {
        name: _step(model, options["batch"], wait) for name, model in models.items()
    }
    return {
        "seconds": interleaved(steps, options["rounds"], options["turn"]),
        "parameters": models[OURS].count_params(),
        "orthogonalized": {
            name: _orthogonalized(model.optimizer) for name, model in models.items()
        },
    }


def optimizer(name: str) -> Any:
    """Return one of `RACING` as a user would make it for the GPT."""
    import keras

    from keras_muon import Muon

    same = {"learning_rate": RATE, "weight_decay": DECAY}
    made: dict[str, Callable[[], Any]] = {
        PLAIN: lambda: keras.optimizers.SGD(RATE),
        ADAMW: lambda: keras.optimizers.AdamW(**same),
        BUILT_IN: lambda: keras.optimizers.Muon(
            **same, adam_weight_decay=DECAY, exclude_layers=["head"]
        ),
        OURS: lambda: Muon(**same),
    }
    return made[name]()


def _compiled(name: str, options: Options) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    model = gpt(options["width"], options["layers"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(name), loss)
    return model


def _step(model: Any, batch: int, wait: Callable) -> Callable[[], None]:
    generator = np.random.default_rng(SEED)
    text = generator.integers(0, TOKENS, (batch, CONTEXT + 1)).astype("int32")
    given, wanted = text[:, :-1], text[:, 1:]
    return lambda: wait(model.train_on_batch(given, wanted))


def _orthogonalized(rule: Any) -> int:
    """Return the number of parameters that an optimizer orthogonalizes."""
    if hasattr(rule, "routes"):
        return sum(int(np.prod(r.shape)) for r in rule.routes if r.rule == "muon")
    velocities = getattr(rule, "adam_velocities", None)
    if velocities is None:
        return 0
    pairs = zip(rule.momentums, velocities, strict=True)
    return sum(int(np.prod(m.shape)) for m, velocity in pairs if velocity is None)


if __name__ == "__main__":
    answered(measured)
