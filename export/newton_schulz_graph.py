"""Newton-Schulz as an ONNX graph: unrolled, without control flow for known shapes."""

from collections.abc import Sequence
from typing import Any

import onnx

from keras_muon.admissible import Triple
from keras_muon.export.arguments import (
    DEFAULT_OPSET,
    Extent,
    GraphShape,
    checked_dtype,
    checked_emulation,
    checked_opset,
    checked_shape,
    checked_side,
    checked_triples,
)
from keras_muon.export.finish import Port, finish
from keras_muon.export.graph_writer import Value
from keras_muon.export.recorder import Recorder
from keras_muon.newton_schulz import iterated, normalized
from keras_muon.plan import Side, short_side
from keras_muon.schedules import Schedule, get_schedule

FORMULA = """\
X <- U / |U|_F, then for every triple (a, b, c): A = X X^T, X <- a X + (b A + c A A) X.
U is `update`, of shape {shape}; the last X is `polar_factor`.
Schedule {name}, in {dtype}: {triples}."""


def newton_schulz(
    shape: Sequence[Extent],
    *,
    schedule: str | dict | Schedule = "jordan",
    steps: int | None = None,
    batch: Extent | None = None,
    side: str = "auto",
    dtype: str = "float32",
    emulate: str | None = None,
    opset: int = DEFAULT_OPSET,
    dynamic: bool = False,
) -> onnx.ModelProto:
    """Return a graph from `update` to its `polar_factor`.

    Args:
        shape: The extents of a matrix, (in, out). Names of unknown extents need
            `dynamic`.
        schedule: A name in `keras_muon.SCHEDULES`, or a `keras_muon.Schedule`.
        steps: Number of steps. None takes the schedule's own number.
        batch: How many matrices the input stacks on a first axis; a string names an
            unknown number. None is one matrix without that axis.
        side: Side of the Gram matrix: `"in"` (X X^T), `"out"` (X^T X), or `"auto"`,
            the short side. The result is the same, the cost is not.
        dtype: `"float32"` or `"float64"`.
        emulate: `"bfloat16"` or `"float16"`: round every product to it and back, to
            predict what hardware of that precision returns.
        opset: Version of the standard operators, 18 to 26.
        dynamic: Whether `shape` may name unknown extents. With `side="auto"` the graph
            then holds one `If`, on which of the two is shorter.

    Returns:
        The model, checked.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is unknown or out of range.

    Example:
        >>> model = newton_schulz((64, 128))
        >>> [output.name for output in model.graph.output]
        ['polar_factor']

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
    """
    extents = checked_shape(shape, batch, dynamic)
    schedule, side = get_schedule(schedule), checked_side(side)
    triples = checked_triples(schedule, steps)
    dtype, opset = checked_dtype(dtype), checked_opset(opset)
    emulate = checked_emulation(emulate, dtype)
    recorder = Recorder(stacked=batch is not None)
    update = recorder.input("update", dtype)
    result = record_newton_schulz(
        recorder, update, extents, triples, side=side, compute_dtype=emulate or dtype
    )
    result = recorder.output(result, "polar_factor")
    return finish(
        recorder,
        [Port(update, extents.extents)],
        [Port(result, extents.extents)],
        name="newton_schulz",
        opset=opset,
        doc_string=formula(extents.extents, schedule, triples, emulate or dtype),
        specification={
            "kind": "newton_schulz",
            "shape": [extents.fan_in, extents.fan_out],
            "schedule": schedule.to_json(),
            "steps": len(triples),
            "batch": extents.batch,
            "side": side,
            "dtype": dtype,
            "emulate": emulate,
            "opset": opset,
            "dynamic": dynamic,
        },
    )


def record_newton_schulz(
    recorder: Recorder,
    x: Value,
    shape: GraphShape,
    triples: Sequence[Triple],
    *,
    side: str,
    compute_dtype: str,
) -> Value:
    """Write down the iteration of `keras_muon.newton_schulz`.

    Args:
        recorder: Where to.
        x: The update.
        shape: Its extents.
        triples: One (a, b, c) per step.
        side: `"in"`, `"out"` or `"auto"`.
        compute_dtype: Dtype of the products, which may be an emulated one.

    Returns:
        The polar factor, in the dtype of the update.
    """
    recorder.scope = "normalized"
    normal = recorder.cast(normalized(x, recorder), compute_dtype)

    def iterate(side: Side, carrier: Recorder) -> Value:
        return iterated(normal, [(triple,) for triple in triples], side, carrier)

    if shape.is_symbolic and side == "auto":
        result = recorder.on_short_side(normal, iterate)
    else:
        result = iterate(_chosen(side, shape), recorder)
    return recorder.cast(result, x.dtype)


def formula(
    extents: Sequence[Extent], schedule: Schedule, triples: Sequence[Triple], dtype: str
) -> str:
    """Return the formula of the iteration with its numbers, for `doc_string`."""
    return FORMULA.format(
        shape=" x ".join(map(str, extents)),
        name=schedule.name,
        dtype=dtype,
        triples=", ".join(map(str, triples)),
    )


def _chosen(side: Any, shape: GraphShape) -> Side:
    if side != "auto":
        return side
    return short_side(int(shape.fan_in), int(shape.fan_out))
