"""Fifty steps of a whole optimizer: embeddings, attention, biases, gains, head.

As a script it is the process of one backend, which `equivalence.py` starts; it moves
the model with Keras and exports the optimizer before its first step:

    python examples/benchmarks/whole_step.py jax FOLDER --steps 50 --width 64 --layers 2
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]

SEED = 20241204
LEARNING_RATE = 0.02
HEADS = 4
TOKENS, CONTEXT = 256, 64


def gpt(width: int, layers: int):
    """Return a transformer over bytes, its norms before each block."""
    import keras

    tokens = keras.Input((CONTEXT,), dtype="int32")
    x = keras.layers.Embedding(TOKENS, width, name="tokens")(tokens)
    for layer in range(layers):
        y = keras.layers.LayerNormalization(name=f"norm_{layer}a")(x)
        attention = keras.layers.MultiHeadAttention(
            HEADS, width // HEADS, name=f"attention_{layer}"
        )
        x = x + attention(y, y, use_causal_mask=True)
        y = keras.layers.LayerNormalization(name=f"norm_{layer}b")(x)
        y = keras.layers.Dense(4 * width, "gelu", name=f"expand_{layer}")(y)
        x = x + keras.layers.Dense(width, name=f"contract_{layer}")(y)
    x = keras.layers.LayerNormalization(name="norm")(x)
    return keras.Model(tokens, keras.layers.Dense(TOKENS, name="head")(x))


def start(shapes: dict[str, tuple[int, ...]]) -> Arrays:
    """Return the same first values on every backend."""
    generator = np.random.default_rng(SEED)
    return {
        name: generator.normal(0.0, 0.05, shape).astype("float32")
        for name, shape in shapes.items()
    }


def gradients(values: Arrays, steps: int) -> Iterator[Arrays]:
    """Yield the same gradients on every backend, their scales from tiny to large."""
    generator = np.random.default_rng(SEED + 1)
    scales = np.geomspace(1e-4, 10.0, len(values))
    for _ in range(steps):
        yield {
            name: (scale * generator.standard_normal(value.shape)).astype("float32")
            for scale, (name, value) in zip(scales, values.items(), strict=True)
        }


def rates(steps: int) -> list[float]:
    """Return a rate that falls to a tenth."""
    return np.linspace(LEARNING_RATE, 0.1 * LEARNING_RATE, steps).tolist()


def by_keras(model, steps: int) -> Arrays:
    """Move a model with its optimizer and return the new parameters."""
    import keras

    from keras_muon.export import variable_values

    before, _ = variable_values(model)
    for rate, given in zip(rates(steps), gradients(before, steps), strict=True):
        model.optimizer.learning_rate = rate
        tensors = [keras.ops.convert_to_tensor(g) for g in given.values()]
        model.optimizer.apply(tensors, model.trainable_variables)
    return variable_values(model)[0]


def by_onnxruntime(folder: Path, before: Arrays, steps: int, device: str) -> Arrays:
    """Move arrays with an exported optimizer and return the new parameters."""
    from keras_muon.export import StepRunner

    runner = StepRunner(folder, before, device=device)
    for rate, given in zip(rates(steps), gradients(before, steps), strict=True):
        runner.step(given, rate)
    return runner.parameters


def exported(width: int, layers: int, folder: Path, **settings):
    """Return a compiled model with the common first values, its optimizer exported.

    Args:
        width: Width of the model.
        layers: Number of its blocks.
        folder: Where the export goes.
        **settings: Of the optimizer.
    """
    from keras_muon import Muon
    from keras_muon.export import optimizer_step

    model = gpt(width, layers)
    # "auto" would compute in bfloat16 where a processor has it, and graphs emulate it.
    settings = {"compute_dtype": "float32"} | settings
    optimizer = Muon.for_model(model, learning_rate=LEARNING_RATE, **settings)
    model.compile(optimizer, "mse")
    variables = model.trainable_variables
    values = start({v.path: tuple(v.shape) for v in variables})
    for variable in variables:
        variable.assign(values[variable.path])
    model.optimizer.build(variables)
    optimizer_step(model, folder, force=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--layers", type=int, required=True)
    arguments = parser.parse_args()
    # Keras reads it when it is imported, which happens below.
    os.environ["KERAS_BACKEND"] = arguments.backend
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    model = exported(arguments.width, arguments.layers, folder / "step")
    from keras_muon.export import variable_values

    np.savez(folder / "before.npz", **variable_values(model)[0])
    np.savez(folder / "after.npz", **by_keras(model, arguments.steps))


if __name__ == "__main__":
    main()
