"""A process of one backend that saves training, and continues what others saved.

Run as `python resume_worker.py FOLDER` with KERAS_BACKEND set. It trains a model, saves
it, trains on, and prints a line. When it reads a line it continues from the file of
every backend. Everything it computes is left in FOLDER.
"""

import sys
import warnings
from pathlib import Path

import keras
import numpy as np

from keras_muon import Muon

BACKENDS = ("tensorflow", "jax", "torch")
BATCH = 4
# Three calls: accumulation over two of them is cut in the middle of a cycle.
CALLS = 3
LENGTH, WIDTH, VOCABULARY = 5, 8, 11

# All that an optimizer can keep: momentum, moments, sums of gradients, averages.
ARGUMENTS = {
    "learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 12),
    "adam_learning_rate": keras.optimizers.schedules.ExponentialDecay(0.05, 4, 0.5),
    "gradient_accumulation_steps": 2,
    "use_ema": True,
    "ema_momentum": 0.5,
    "ns_steps": 2,
}
# What it would mean that a file is not understood in full is an error here.
UNDERSTOOD = ".*(restored in part|Skipping|another optimizer|Muon leaves)"


def new_model():
    """Attention with 3-D kernels between an embedding and an untied head.

    Without biases: the gradient of a key's bias is zero but for rounding, and AdamW
    makes a full step of what rounding leaves.
    """
    keras.utils.set_random_seed(31)
    tokens = keras.Input((LENGTH,), dtype="int32")
    embedded = keras.layers.Embedding(VOCABULARY, WIDTH, name="tokens")(tokens)
    attention = keras.layers.MultiHeadAttention(
        2, WIDTH // 2, use_bias=False, name="attention"
    )
    hidden = keras.layers.Dense(WIDTH, activation="tanh", name="hidden")
    head = keras.layers.Dense(VOCABULARY, name="head")
    return keras.Model(tokens, head(hidden(embedded + attention(embedded, embedded))))


def trained(model):
    """Train for a few calls, compiled where that takes less time than it saves."""
    model.jit_compile = keras.backend.backend() == "jax"
    numbers = np.random.default_rng(37)
    x = numbers.integers(0, VOCABULARY, (CALLS * BATCH, LENGTH))
    y = numbers.integers(0, VOCABULARY, (CALLS * BATCH, LENGTH))
    model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
    return model


def keep(model, path):
    """Leave the weights, in order, and the count of steps."""
    values = [keras.ops.convert_to_numpy(v) for v in model.variables]
    steps = keras.ops.convert_to_numpy(model.optimizer.iterations)
    np.savez(path, *values, steps=steps)


def save_and_train_on(folder, backend):
    model = new_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(Muon(**ARGUMENTS), loss)
    trained(model).save(folder / f"{backend}.keras")
    keep(model, folder / f"{backend}-saved.npz")
    keep(trained(model), folder / f"{backend}.npz")


def continue_what_others_saved(folder, backend):
    for origin in BACKENDS:
        model = keras.saving.load_model(folder / f"{origin}.keras")
        keep(trained(model), folder / f"{origin}-{backend}.npz")


def main():
    folder, backend = Path(sys.argv[1]), keras.backend.backend()
    warnings.filterwarnings("error", message=UNDERSTOOD)
    save_and_train_on(folder, backend)
    print("saved", flush=True)
    sys.stdin.readline()
    continue_what_others_saved(folder, backend)


if __name__ == "__main__":
    main()
