"""Newton-Schulz as an ONNX graph: unrolled, without control flow for known shapes."""

from collections.abc import Sequence

import onnx

from keras_muon.compression import polar_factors
from keras_muon.export.arguments import (
    DEFAULT_OPSET,
    Extent,
    checked_opset,
    checked_shape,
)
from keras_muon.export.finish import Port, finish
from keras_muon.export.graph_writer import Value
from keras_muon.export.iteration import Iteration
from keras_muon.export.recorder import Recorder
from keras_muon.newton_schulz import iterated, iterated_split, normalized
from keras_muon.plan import Side
from keras_muon.schedules import Schedule


def newton_schulz(
    shape: Sequence[Extent],
    *,
    schedule: str | dict | Schedule = "jordan",
    steps: int | None = None,
    method: str = "standard",
    batch: Extent | None = None,
    side: str = "auto",
    dtype: str = "float32",
    emulate: str | None = None,
    opset: int = DEFAULT_OPSET,
    dynamic: bool = False,
    panels: int = 1,
) -> onnx.ModelProto:
    """Return a graph from `update` to its `polar_factor`.

    Args:
        shape: The extents of a matrix, (in, out). Names of unknown extents need
            `dynamic`.
        schedule: A name in `keras_muon.SCHEDULES`, or a `keras_muon.Schedule`.
        steps: Number of steps. None takes the schedule's own number.
        method: `"standard"` takes the schedule's triples, each with a Gram matrix of
            its own. In float32, where extents are known and the Gram matrix has 512
            rows or fewer, it splits the products of steep first steps: five digits stay
            where a matrix lacks directions, for 27 to 40 % more operations and up to
            twice the nodes. `"auto"` and emulation have no such digits. `"planned"`
            does what `keras_muon.Muon` does with matrices of these extents: steps share
            Gram matrices, and the schedule `"auto"` compresses leading singular values
            of large ones. `steps` switches that off.
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
        panels: In how many row panels symmetric products of 512 rows or more are
            computed, 1 to 4. What lies below the diagonal is then mirrored: 2 panels
            save a quarter of such a product's operations, 4 save 3/8. For a single
            matrix of known extents; faster on CPUs.

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
    iteration = Iteration.checked(
        extents,
        schedule,
        steps,
        method=method,
        side=side,
        dtype=dtype,
        emulate=emulate,
        panels=panels,
    )
    opset = checked_opset(opset)
    recorder = Recorder(stacked=batch is not None, panels=iteration.panels)
    update = recorder.input("update", iteration.dtype, extents.fixed_matrix)
    result = record_newton_schulz(recorder, update, iteration)
    result = recorder.output(result, "polar_factor")
    return finish(
        recorder,
        [Port(update, extents.extents)],
        [Port(result, extents.extents)],
        name="newton_schulz",
        opset=opset,
        doc_string=iteration.formula,
        specification={
            "kind": "newton_schulz",
            **iteration.specification,
            "side": iteration.side,
            "opset": opset,
            "dynamic": dynamic,
        },
    )


def record_newton_schulz(recorder: Recorder, x: Value, iteration: Iteration) -> Value:
    """Write down the iteration of `keras_muon.newton_schulz`, or of a plan.

    Args:
        recorder: Where to.
        x: The update.
        iteration: How.

    Returns:
        The polar factor, in the dtype of the update.
    """
    recorder.scope = "normalized"
    plan = iteration.plan
    if plan is not None:
        return recorder.cast(polar_factors(x, plan, recorder), x.dtype)
    segments = [(triple,) for triple in iteration.triples]
    if iteration.split:
        side, split = iteration.gram_side, iteration.split
        dtype = iteration.compute_dtype
        return iterated_split(x, segments, side, recorder, split, dtype=dtype)
    normal = normalized(x, recorder, iteration.compute_dtype)

    def iterate(side: Side, carrier: Recorder) -> Value:
        return iterated(normal, segments, side, carrier)

    if iteration.shape.is_symbolic and iteration.side == "auto":
        result = recorder.on_short_side(normal, iterate)
    else:
        result = iterate(iteration.gram_side, recorder)
    return recorder.cast(result, x.dtype)
