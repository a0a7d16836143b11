"""Train a small byte-level GPT with AdamW, Keras' own Muon, and keras_muon's.

    python examples/quickstart.py
    python examples/quickstart.py --backend torch --steps 200 --size tiny --rate 3e-3

The text is the source code of Python's standard library, which every machine has. All
runs see the same batches, start from the same weights, and use the same weight decay
and learning rate; AdamW takes a third of it too, which suits it better. Prints which
variable goes where and a table of results, and saves the curves.
"""

import argparse
import dataclasses
import os
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SIZES = {
    # name: width, layers, heads, bytes of context, sequences per batch
    "tiny": (64, 2, 4, 64, 16),
    "small": (128, 2, 4, 64, 16),
    "medium": (256, 6, 8, 128, 16),
}
WEIGHT_DECAY = 0.1
MOMENTUM = 0.9
EVALUATE_EVERY = 20
SEED = 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare AdamW, keras.optimizers.Muon and keras_muon.Muon.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backend", choices=("jax", "torch", "tensorflow"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rate", type=float, default=6e-3, help="learning rate")
    parser.add_argument("--plot", type=Path, default=Path("quickstart.png"))
    arguments = parser.parse_args()
    if not 0 < arguments.rate < 1:
        parser.error(f"--rate must lie between 0 and 1; got {arguments.rate}.")
    if not arguments.plot.absolute().parent.is_dir():
        parser.error(f"--plot: there is no folder {arguments.plot.absolute().parent}.")
    if arguments.steps < 2 * EVALUATE_EVERY or arguments.steps % EVALUATE_EVERY:
        parser.error(
            f"--steps must be a multiple of {EVALUATE_EVERY}, the steps between two "
            f"evaluations, and at least {2 * EVALUATE_EVERY}; got {arguments.steps}."
        )
    return arguments


# Keras reads its backend once, when it is imported.
ARGUMENTS = parse_arguments()
if ARGUMENTS.backend:
    os.environ["KERAS_BACKEND"] = ARGUMENTS.backend
os.environ.setdefault("KERAS_BACKEND", "jax")

import keras  # noqa: E402
import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402

from keras_muon import Muon  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

console = Console()


@dataclasses.dataclass
class Run:
    """One optimizer's result: losses per evaluation, and seconds."""

    name: str
    steps: list[int]
    losses: list[float]
    seconds: float
    model: keras.Model

    def steps_to(self, loss: float) -> int | None:
        """First evaluated step whose validation loss is at most `loss`."""
        reached = (s for s, x in zip(self.steps, self.losses, strict=True) if x <= loss)
        return next(reached, None)


class Text:
    """Source code of the standard library as bytes: most to train, the end to test."""

    def __init__(self, context: int, batch: int, limit: int = 8_000_000):
        folder = Path(sysconfig.get_paths()["stdlib"])
        files = sorted(folder.glob("*.py")) + sorted(folder.glob("[a-z]*/*.py"))
        chosen = [file for file in files if "site-packages" not in file.parts]
        np.random.default_rng(SEED).shuffle(chosen)
        text = b"\n".join(file.read_bytes() for file in chosen)[:limit]
        self.bytes = np.frombuffer(text, np.uint8).astype("int32")
        self.border = len(self.bytes) * 9 // 10
        self.context, self.batch = context, batch

    def windows(self, start: int, stop: int, count: int, seed: int) -> tuple:
        """Return `count` random windows and the same windows one byte later."""
        generator = np.random.default_rng(seed)
        starts = generator.integers(start, stop - self.context - 1, count)
        rows = self.bytes[starts[:, None] + np.arange(self.context + 1)]
        return rows[:, :-1], rows[:, 1:]

    def batches(self, first: int = 0) -> Iterator[tuple]:
        """Yield the same endless sequence of training batches every time."""
        step = first
        while True:
            yield self.windows(0, self.border, self.batch, seed=SEED + 1 + step)
            step += 1

    def validation(self, count: int = 256) -> tuple:
        """Return windows that training never sees."""
        return self.windows(self.border, len(self.bytes), count, seed=SEED)


class Ticker(keras.callbacks.Callback):
    """Advances a progress bar with every training step."""

    def __init__(self, progress: Progress, task: int):
        super().__init__()
        self.progress, self.task = progress, task

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.progress.advance(self.task)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.progress.update(self.task, loss=f"{(logs or {})['val_loss']:.3f}")


def build_gpt(width: int, layers: int, heads: int, context: int) -> keras.Model:
    """Return a causal transformer over bytes, its norms before each block."""
    tokens = keras.Input((context,), dtype="int32")
    x = keras.layers.Embedding(256, width, name="tokens")(tokens)
    # Made from the input, so that the layer that embeds them is part of the model.
    positions = keras.ops.cumsum(keras.ops.ones_like(tokens), axis=-1) - 1
    x = x + keras.layers.Embedding(context, width, name="positions")(positions)
    for layer in range(layers):
        y = keras.layers.LayerNormalization(name=f"norm_{layer}a")(x)
        attention = keras.layers.MultiHeadAttention(
            heads, width // heads, name=f"attention_{layer}"
        )
        x = x + attention(y, y, use_causal_mask=True)
        y = keras.layers.LayerNormalization(name=f"norm_{layer}b")(x)
        y = keras.layers.Dense(4 * width, "gelu", name=f"expand_{layer}")(y)
        x = x + keras.layers.Dense(width, name=f"contract_{layer}")(y)
    x = keras.layers.LayerNormalization(name="norm")(x)
    return keras.Model(tokens, keras.layers.Dense(256, name="head")(x))


def optimizers(rate: float) -> dict[str, keras.optimizers.Optimizer]:
    """Return the optimizers, with everything that they share set equal."""
    adamw = {"weight_decay": WEIGHT_DECAY, "beta_2": 0.95}
    return {
        "AdamW": keras.optimizers.AdamW(rate, **adamw),
        f"AdamW at {rate / 3:.2g}": keras.optimizers.AdamW(rate / 3, **adamw),
        "keras.optimizers.Muon": keras.optimizers.Muon(
            rate,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
            adam_weight_decay=WEIGHT_DECAY,
            adam_beta_2=0.95,
        ),
        "keras_muon.Muon": Muon(rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
    }


def compiled(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    return model


def train(name: str, optimizer, text: Text, progress: Progress) -> Run:
    """Train a fresh model with one optimizer and evaluate it at regular steps."""
    width, layers, heads, context, _ = SIZES[ARGUMENTS.size]
    keras.utils.set_random_seed(SEED)
    model = compiled(build_gpt(width, layers, heads, context), optimizer)
    task = progress.add_task(name, total=ARGUMENTS.steps, loss="...")
    start = time.perf_counter()
    history = model.fit(
        text.batches(),
        steps_per_epoch=EVALUATE_EVERY,
        epochs=ARGUMENTS.steps // EVALUATE_EVERY,
        validation_data=text.validation(),
        validation_batch_size=128,
        shuffle=False,
        callbacks=[Ticker(progress, task)],
        verbose=0,
    )
    losses = history.history["val_loss"]
    steps = [EVALUATE_EVERY * (i + 1) for i in range(len(losses))]
    return Run(name, steps, losses, time.perf_counter() - start, model)


def goal_of(runs: list[Run]) -> float:
    """The final loss of AdamW at the better of its rates."""
    return min(run.losses[-1] for run in runs if run.name.startswith("AdamW"))


def result_table(runs: list[Run]) -> Table:
    """Return validation loss, steps to the better AdamW's final one, and seconds."""
    goal = goal_of(runs)
    table = Table(
        title=f"{ARGUMENTS.size} GPT, {ARGUMENTS.steps} steps at rate "
        f"{ARGUMENTS.rate:g}, decay {WEIGHT_DECAY:g}, Keras {keras.__version__} on "
        f"{keras.backend.backend()}",
        title_justify="left",
    )
    table.add_column("optimizer")
    for column in ("validation loss", "steps to AdamW's best", "seconds"):
        table.add_column(column, justify="right")
    for run in runs:
        reached = run.steps_to(goal)
        steps = f"{reached} of {ARGUMENTS.steps}" if reached else "not reached"
        table.add_row(run.name, f"{run.losses[-1]:.3f}", steps, f"{run.seconds:.0f}")
    return table


def save_plot(runs: list[Run], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for run in runs:
        axes.plot(run.steps, run.losses, label=run.name)
    axes.axhline(goal_of(runs), color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="step", ylabel="validation loss (nats per byte)", yscale="log")
    axes.yaxis.set_minor_formatter(matplotlib.ticker.FormatStrFormatter("%.1f"))
    axes.legend()
    figure.savefig(path, dpi=150)


def continue_from_file(run: Run, text: Text) -> tuple[float, float]:
    """Save the model with its optimizer, load both, train on; return both losses."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        run.model.save(path)
        model = keras.saving.load_model(path)
    inputs, targets = text.validation()
    before = model.evaluate(inputs, targets, batch_size=128, verbose=0)
    batches = text.batches(first=ARGUMENTS.steps)
    model.fit(batches, steps_per_epoch=EVALUATE_EVERY, shuffle=False, verbose=0)
    after = model.evaluate(inputs, targets, batch_size=128, verbose=0)
    return before, after


def main() -> None:
    context, batch = SIZES[ARGUMENTS.size][3:]
    text = Text(context, batch)
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    loss = TextColumn("loss {task.fields[loss]}")
    with Progress(*columns, loss, console=console) as progress:
        runs = [
            train(name, optimizer, text, progress)
            for name, optimizer in optimizers(ARGUMENTS.rate).items()
        ]
    runs[-1].model.optimizer.describe()
    console.print(result_table(runs))
    save_plot(runs, ARGUMENTS.plot)
    console.print(f"Curves: {ARGUMENTS.plot.resolve()}", soft_wrap=True)
    before, after = continue_from_file(runs[-1], text)
    console.print(
        f"Saved, loaded, trained {EVALUATE_EVERY} steps more: {before:.3f} -> "
        f"{after:.3f}"
    )


if __name__ == "__main__":
    main()
