"""Inputs to try a graph on: seeded, and of every orientation that it can meet."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from keras_muon.export.arguments import Extent

# Extents of what a graph leaves open. With both matrix extents open, wide and tall.
BATCH = 3
OPEN_EXTENTS = (24, 40)

# Scalars of the step graphs. Steps large enough that a wrong one shows in the weights.
SCALARS = {"learning_rate": 0.5, "weight_decay": 0.3, "step": 3}
PARAMETER_SIZE = 0.05

SEED = 20241204

Arrays = dict[str, np.ndarray]


def probes(model: onnx.ModelProto, specification: Mapping[str, Any]) -> list[Arrays]:
    """Return inputs for a graph, by name and in its order.

    Args:
        model: The model.
        specification: What it was made with; names in `shape` are open extents.

    Returns:
        One dictionary per orientation: two if the graph chooses at run time.

    Example:
        >>> from keras_muon.export import newton_schulz, specification_of
        >>> model = newton_schulz(("m", "n"), dynamic=True)
        >>> [p["update"].shape for p in probes(model, specification_of(model))]
        [(24, 40), (40, 24)]
    """
    shape, batch = specification["shape"], specification.get("batch")
    cases = [extents | _open_batch(batch) for extents in _open_extents(shape)]
    rng = np.random.default_rng(SEED)
    return [_inputs(model, extents, rng) for extents in cases]


def _open_batch(batch: Extent | None) -> dict[str, int]:
    return {batch: BATCH} if isinstance(batch, str) else {}


def _open_extents(shape: Sequence[Extent]) -> list[dict[str, int]]:
    """The values of the named extents of a matrix, per orientation."""
    names = [extent for extent in shape if isinstance(extent, str)]
    known = [extent for extent in shape if not isinstance(extent, str)]
    if not names:
        return [{}]
    if len(set(names)) == 1:
        # A name used twice is a square; one beside a number may be less or more.
        sizes = [max(1, known[0] // 2), 2 * known[0]] if known else [OPEN_EXTENTS[0]]
        return [{names[0]: size} for size in sizes]
    short, long = OPEN_EXTENTS
    return [
        dict(zip(names, pair, strict=True)) for pair in [(short, long), (long, short)]
    ]


def _inputs(
    model: onnx.ModelProto, extents: dict[str, int], rng: np.random.Generator
) -> Arrays:
    return {entry.name: _array(entry, extents, rng) for entry in model.graph.input}


def _array(
    entry: onnx.ValueInfoProto, extents: dict[str, int], rng: np.random.Generator
) -> np.ndarray:
    tensor = entry.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if entry.name in SCALARS:
        return np.asarray(SCALARS[entry.name], dtype)
    shape = [extents.get(d.dim_param, d.dim_value) for d in tensor.shape.dim]
    array = rng.standard_normal(shape)
    if entry.name == "parameter":
        array = PARAMETER_SIZE * array
    # A moving average of squares is positive.
    return np.asarray(array**2 if entry.name == "velocity" else array, dtype)
