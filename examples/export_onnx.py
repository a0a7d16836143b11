"""Export Muon as ONNX, and train a classifier with ONNX Runtime alone.

    python examples/export_onnx.py
    python examples/export_onnx.py --backend torch --epochs 5 --folder digits_step

First a single orthogonalization beside its graph. Then the optimizer of a Keras model
is exported, and scikit-learn's digits are learned twice, from the same weights and
batches: by Keras, and by ONNX Runtime alone, which computes the gradients with a small
graph written by hand and moves the weights with the exported optimizer.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

BATCH = 64
RATE = 5e-3
SEED = 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Export Muon as ONNX, and train with ONNX Runtime alone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backend", choices=("jax", "torch", "tensorflow"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where to keep the exported graphs")
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error(f"--epochs must be at least 1; got {arguments.epochs}.")
    return arguments


# Keras reads its backend once, when it is imported.
ARGUMENTS = parse_arguments()
if ARGUMENTS.backend:
    os.environ["KERAS_BACKEND"] = ARGUMENTS.backend
os.environ.setdefault("KERAS_BACKEND", "jax")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from onnx_classifier import HIDDEN, OnnxClassifier  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402

from keras_muon import Muon, orthogonalize  # noqa: E402
from keras_muon.export import (  # noqa: E402
    StepRunner,
    newton_schulz,
    optimizer_step,
    run,
    variable_values,
)

console = Console()


class Digits:
    """Images of 8 x 8 points as vectors, a quarter to test, in a fixed order."""

    def __init__(self) -> None:
        data = load_digits()
        order = np.random.default_rng(SEED).permutation(len(data.target))
        images = (data.data[order] / 16).astype("float32")
        labels = data.target[order].astype("int32")
        border = len(images) // 4
        self.test = images[:border], labels[:border]
        self.train = images[border:], labels[border:]

    def epoch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the training data in the order of an epoch."""
        images, labels = self.train
        order = np.random.default_rng([SEED, number]).permutation(len(labels))
        return images[order], labels[order]


def build_model() -> keras.Model:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(HIDDEN, activation="tanh", name="first"),
            layers.Dense(HIDDEN, activation="tanh", name="second"),
            layers.Dense(10, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = Muon.for_model(model, learning_rate=RATE)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


def rate_of(epoch: int) -> float:
    """Return a learning rate that falls linearly, to a tenth in the last epoch."""
    return RATE * (1.0 - 0.9 * epoch / max(ARGUMENTS.epochs - 1, 1))


def train_by_keras(model: keras.Model, digits: Digits) -> float:
    """Train with `fit`, and return the accuracy on the test images."""
    for epoch in range(ARGUMENTS.epochs):
        model.optimizer.learning_rate = rate_of(epoch)
        model.fit(*digits.epoch(epoch), batch_size=BATCH, shuffle=False, verbose=0)
    return model.evaluate(*digits.test, verbose=0, return_dict=True)["accuracy"]


def train_by_onnxruntime(classifier: OnnxClassifier, digits: Digits) -> float:
    """Train without Keras, and return the accuracy on the test images."""
    for epoch in range(ARGUMENTS.epochs):
        classifier.train(*digits.epoch(epoch), BATCH, rate_of(epoch))
    return classifier.accuracy(*digits.test)


def compare_orthogonalization() -> None:
    """Print how far the graph is from `orthogonalize` on one matrix."""
    x = np.random.default_rng(SEED).standard_normal((64, 128)).astype("float32")
    graph = newton_schulz(x.shape, schedule="jordan")
    here = keras.ops.convert_to_numpy(orthogonalize(x, schedule="jordan"))
    difference = np.abs(run(graph, x) - here).max()
    console.print(
        f"newton_schulz of 64 x 128: {len(graph.graph.node)} nodes, "
        f"{graph.ByteSize():,} bytes, {difference:.1e} from orthogonalize on "
        f"{keras.backend.backend()}"
    )


def export(model: keras.Model, folder: Path) -> OnnxClassifier:
    """Export the optimizer and start a classifier from the model's weights."""
    optimizer_step(model, folder, force=True)
    for path in sorted(folder.iterdir()):
        console.print(f"  {path.name}, {path.stat().st_size:,} bytes")
    parameters, state = variable_values(model)
    return OnnxClassifier(StepRunner(folder, parameters, state), parameters)


def main() -> None:
    compare_orthogonalization()
    keras.utils.set_random_seed(SEED)
    model, digits = build_model(), Digits()
    with tempfile.TemporaryDirectory() as room:
        classifier = export(model, ARGUMENTS.folder or Path(room) / "step")
    table = Table(title=f"digits, {ARGUMENTS.epochs} epochs", title_justify="left")
    for column in ("trained by", "test accuracy", "seconds"):
        table.add_column(column, justify="left" if not table.columns else "right")
    trained = {
        f"Keras on {keras.backend.backend()}": (train_by_keras, model),
        "ONNX Runtime alone": (train_by_onnxruntime, classifier),
    }
    for name, (train, learner) in trained.items():
        start = time.perf_counter()
        accuracy = train(learner, digits)
        seconds = time.perf_counter() - start
        table.add_row(name, f"{accuracy:.1%}", f"{seconds:.1f}")
    console.print(table)
    after, _ = variable_values(model)
    differences = (np.abs(after[k] - v) for k, v in classifier.parameters.items())
    steps = classifier.runner.iterations
    largest = max(difference.max() for difference in differences)
    console.print(f"Parameters differ by at most {largest:.1e} after {steps} steps.")


if __name__ == "__main__":
    main()
