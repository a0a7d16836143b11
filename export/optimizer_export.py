"""A whole optimizer as a folder: one graph per bucket, and a manifest."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_muon.export.arguments import DEFAULT_OPSET
from keras_muon.export.bucket_graph import bucket_graph
from keras_muon.export.finish import serialized
from keras_muon.export.folder import write_together
from keras_muon.export.manifest import (
    FILE_NAME,
    Bucket,
    Entry,
    Manifest,
    bucket_extents,
)
from keras_muon.export.refusals import (
    muon_of,
    refuse_options,
    refuse_variables,
)
from keras_muon.messages import require_flag
from keras_muon.routing import Rule, unique_names

Optimizer = Any
Variable = Any


def optimizer_step(
    optimizer_or_model: Any,
    folder: str | os.PathLike[str],
    *,
    opset: int = DEFAULT_OPSET,
    force: bool = False,
) -> Path:
    """Write the graphs that make an optimizer's step, and how to feed them.

    Variables of equal matrix shape, dtype, rule and weight decay share a graph.
    `manifest.json` names each variable's graph, place in the stack and view, the rates
    and the step count; `StepRunner` reads it. Values are not written: see
    `variable_values`.

    The graphs follow the optimizer's plans. Where `compute_dtype="auto"` means bfloat16
    on this machine, they emulate it, and equal Keras only up to its rounding; create
    the optimizer with compute_dtype="float32" for equality to 1e-5.

    Args:
        optimizer_or_model: A built `keras_muon.Muon`, or a model compiled with one.
        folder: Where to write.
        opset: Version of the standard operators, 18 to 26.
        force: Whether to replace an export that is there.

    Returns:
        The folder.

    Raises:
        FileExistsError: If files of an export are there and `force` is False.
        OSError: If the folder cannot be written.
        TypeError: If the optimizer is another one, or `folder` no path.
        ValueError: If it is not built, or does what graphs do not express: clipping,
            moving averages, gradient accumulation, loss scaling, constraints.

    Example:
        >>> import keras, keras_muon, tempfile
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile(keras_muon.Muon(1e-3), "mse")
        >>> model.optimizer.build(model.trainable_variables)
        >>> with tempfile.TemporaryDirectory() as room:
        ...     folder = optimizer_step(model, room + "/step")
        ...     sorted(path.name for path in folder.iterdir())
        ['adamw_4_float32.onnx', 'adamw_8x4_float32.onnx', 'manifest.json']
    """
    optimizer = muon_of(optimizer_or_model)
    refuse_options(optimizer)
    target, force = _checked_folder(folder), require_flag("force", force)
    files, buckets = {}, []
    indices = {name: index for index, name, _ in _moved(optimizer)}
    for bucket in _buckets(optimizer):
        members = [indices[entry.name] for entry in bucket.variables]
        content = serialized(bucket_graph(optimizer, bucket, members, opset))
        files[bucket.graph] = content
        sha256 = hashlib.sha256(content).hexdigest()
        buckets.append(dataclasses.replace(bucket, sha256=sha256))
    rate = optimizer.adam_rate_rule
    constant = rate.given if isinstance(rate.given, float) else None
    ratio = 1.0 if rate.given is None and rate.ratio is None else rate.ratio
    manifest = Manifest(
        iterations=int(_plain(optimizer.iterations)),
        learning_rate=float(_plain(optimizer.learning_rate)),
        adam_ratio=ratio,
        adam_learning_rate=constant if ratio is None else None,
        buckets=tuple(buckets),
    )
    files[FILE_NAME] = manifest.to_text().encode()
    return write_together(target, files, force=force)


def variable_values(optimizer_or_model: Any) -> tuple[dict, dict]:
    """Return what a `StepRunner` starts from: parameters and state, by name.

    Args:
        optimizer_or_model: As for `optimizer_step`.

    Returns:
        `{name: array}` of the parameters, and `{name: {"momentum": array}}` of the
        state, with a `"velocity"` for what AdamW moves. A name is a variable's path,
        with a number after it where paths repeat.

    Raises:
        TypeError: If the optimizer is another one.
        ValueError: If it is not built.

    Example:
        >>> import keras, keras_muon
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile(keras_muon.Muon(1e-3), "mse")
        >>> model.optimizer.build(model.trainable_variables)
        >>> parameters, state = variable_values(model)
        >>> sorted(value.shape for value in parameters.values())
        [(4,), (8, 4)]
    """
    optimizer = muon_of(optimizer_or_model)
    parameters, state = {}, {}
    for index, name, variable in _moved(optimizer):
        parameters[name] = np.array(variable.numpy())
        kept = zip(("momentum", "velocity"), optimizer.state_of(index), strict=False)
        state[name] = {part: np.array(value.numpy()) for part, value in kept}
    return parameters, state


def _checked_folder(folder: object) -> Path:
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(
            f"`folder` must be a path; received {folder!r} of type "
            f"{type(folder).__name__}."
        )
    if not os.fspath(folder) or "\0" in str(os.fspath(folder)):
        raise ValueError(
            f"`folder` must be the path of a folder; received {folder!r}. '.' is the "
            "present one."
        )
    return Path(folder)


def _moved(optimizer: Optimizer) -> list[tuple[int, str, Variable]]:
    """Index, name and variable of all that are not frozen."""
    variables = optimizer.trained_variables
    names = unique_names([variable.path for variable in variables])
    everything = zip(range(len(names)), names, variables, strict=True)
    return [entry for entry in everything if entry[-1].trainable]


def _buckets(optimizer: Optimizer) -> tuple[Bucket, ...]:
    """Group the variables that one graph can move in one run."""
    refuse_variables([variable for *_, variable in _moved(optimizer)])
    groups: dict[tuple, list[Entry]] = {}
    for index, name, variable in _moved(optimizer):
        route = optimizer.routes[index]
        view = route.view if route.rule == "muon" else None
        entry = Entry(name, route.shape, view)
        decay = _decay(optimizer, index)
        key = (route.rule, str(variable.dtype), decay, entry.stacked_shape[1:])
        groups.setdefault(key, []).append(entry)
    buckets = []
    for (rule, dtype, decay, _), entries in groups.items():
        graph = _file_name(rule, bucket_extents(tuple(entries)), dtype)
        buckets.append(Bucket(graph, rule, dtype, decay, tuple(entries)))
    return tuple(buckets)


def _decay(optimizer: Optimizer, index: int) -> float:
    decay = optimizer.weight_decay
    own = optimizer.adam_weight_decay
    if optimizer.routes[index].rule == "adamw" and own != "same":
        decay = own
    return decay if decay and optimizer.decays(index) else 0.0


def _file_name(rule: Rule, extents: Sequence[int], dtype: str) -> str:
    return f"{rule}_{'x'.join(map(str, extents)) or 'scalar'}_{dtype}.onnx"


def _plain(value: Any) -> Any:
    """A variable's value, where `float` and `int` want a tensor or number."""
    return getattr(value, "value", value)
