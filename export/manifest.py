"""manifest.json: which variable goes through which graph, and with which rates."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from keras_muon.matrix_view import MatrixView
from keras_muon.routing import Rule

FORMAT = "keras_muon.optimizer_step"
FORMAT_VERSION = 2
FILE_NAME = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One variable of a bucket.

    Args:
        name: Its path, with a number after it where paths repeat.
        shape: Its shape.
        view: Its matrix view, if rule Muon moves it.
    """

    name: str
    shape: tuple[int, ...]
    view: MatrixView | None = None

    @property
    def stacked_shape(self) -> tuple[int, ...]:
        """What it adds to a bucket: its matrices, or itself as one of a stack."""
        return self.view.matrix_shape if self.view else (1, *self.shape)

    def stacked(self, array: np.ndarray) -> np.ndarray:
        """Return a value of the variable as its part of the bucket's stack."""
        if self.view is not None:
            array = array.reshape(self.view.factors).transpose(self.view.permutation)
        return array.reshape(self.stacked_shape)

    def unstacked(self, part: np.ndarray) -> np.ndarray:
        """Return the value whose `stacked` is `part`."""
        if self.view is not None:
            part = part.reshape(self.view.permuted_factors)
            part = part.transpose(self.view.inverse_permutation)
        return part.reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Variables that one run of one graph moves together.

    Args:
        graph: Name of the graph's file.
        rule: `"muon"` or `"adamw"`.
        dtype: Dtype of parameters, gradients and state.
        weight_decay: Share removed per step and unit of learning rate.
        variables: The variables, in the order of the stack.
        sha256: Of the graph's file, so that another one is noticed.
    """

    graph: str
    rule: Rule
    dtype: str
    weight_decay: float
    variables: tuple[Entry, ...]
    sha256: str = ""

    @property
    def extents(self) -> tuple[int, ...]:
        """The shape of the graph's tensors; a stack of one has no axis for it."""
        return bucket_extents(self.variables)

    def stack(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """Return one array of its own for the graph, from values by name."""
        parts = [entry.stacked(values[entry.name]) for entry in self.variables]
        stack = np.concatenate(parts, axis=0, dtype=self.dtype)
        return stack.reshape(self.extents)

    def unstack(self, stack: np.ndarray) -> dict[str, np.ndarray]:
        """Return values by name, as arrays of their own, from the graph's array."""
        sizes = [entry.stacked_shape[0] for entry in self.variables]
        stack = stack.reshape(sum(sizes), *self.variables[0].stacked_shape[1:])
        parts = np.split(stack, np.cumsum(sizes)[:-1], axis=0)
        return {
            entry.name: entry.unstacked(part).copy()
            for entry, part in zip(self.variables, parts, strict=True)
        }


def bucket_extents(variables: tuple[Entry, ...]) -> tuple[int, ...]:
    """Return the shape of the stack of variables that share a bucket."""
    count = sum(entry.stacked_shape[0] for entry in variables)
    one = variables[0].stacked_shape[1:]
    return one if count == 1 else (count, *one)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `optimizer_step` wrote.

    Args:
        iterations: Steps taken before the export.
        learning_rate: The rate at the export. Schedules stay with the caller.
        adam_ratio: AdamW's rate as a multiple of the learning rate, or None.
        adam_learning_rate: AdamW's constant rate, or None. If both are None, the
            caller gives AdamW's rate with each step.
        buckets: What is run in each step.
    """

    iterations: int
    learning_rate: float
    adam_ratio: float | None
    adam_learning_rate: float | None
    buckets: tuple[Bucket, ...]

    def to_text(self) -> str:
        """Return the text of manifest.json."""
        header = {"format": FORMAT, "format_version": FORMAT_VERSION}
        values = header | dataclasses.asdict(self)
        signed = values | {"sha256": _digest(values)}
        return json.dumps(signed, indent=2, allow_nan=False)

    @classmethod
    def from_text(cls, text: str) -> "Manifest":
        """Return the manifest that `to_text` wrote."""
        values = json.loads(text)
        known = isinstance(values, dict) and values.get("format") == FORMAT
        if not known or values.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"Not a manifest of format {FORMAT!r}, version {FORMAT_VERSION}."
            )
        if values.pop("sha256", None) != _digest(values):
            raise ValueError(
                "It is not as optimizer_step wrote it. Its rates and counts decide how "
                "training goes on: set them in Keras and export again."
            )
        del values["format"], values["format_version"]
        buckets = tuple(_bucket(bucket) for bucket in values.pop("buckets"))
        return cls(**values, buckets=buckets)

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Return the manifest of a folder.

        Raises:
            FileNotFoundError: If the folder has none.
            ValueError: If the file is another one.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no {FILE_NAME} in {str(folder)!r}. Make the folder by "
                "keras_muon.export.optimizer_step(model, folder)."
            )
        try:
            return cls.from_text(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{str(path)!r} cannot be read: {error}") from error


def is_manifest(path: Path) -> bool:
    """Whether a file is a manifest of this package, whoever may have edited it.

    Args:
        path: The file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("format") == FORMAT


def _digest(values: dict[str, Any]) -> str:
    """SHA-256 of what a manifest says, however it is laid out."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _bucket(values: dict[str, Any]) -> Bucket:
    entries = []
    for entry in values.pop("variables"):
        view = MatrixView.from_json(entry["view"]) if entry["view"] else None
        entries.append(Entry(entry["name"], tuple(entry["shape"]), view))
    return Bucket(**values, variables=tuple(entries))
