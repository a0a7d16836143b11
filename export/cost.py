"""What one run of a graph costs: operations and bytes, counted from the shapes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx

Shape = tuple[int, ...]

# Operators that move entries and compute none.
FREE = frozenset(
    {"Cast", "Concat", "Identity", "Reshape", "Shape", "Slice", "Transpose"}
)
# Operators with one operation per entry that they read.
PER_INPUT = frozenset({"ReduceMax", "ReduceSum"})
# Operators with one operation per entry that they write.
PER_OUTPUT = frozenset(
    {"Abs", "Add", "Div", "LessOrEqual", "Max", "Mul", "Pow", "Reciprocal", "Round"}
    | {"Sqrt", "Sub"}
)


class Cost(NamedTuple):
    """The cost of one run.

    Args:
        flops: Floating-point operations. A multiply-add is two.
        bytes_moved: Bytes that all nodes read and write, if none are fused.
        bytes_in_and_out: Bytes of the graph's inputs and outputs.
    """

    flops: int
    bytes_moved: int
    bytes_in_and_out: int


def cost(model: onnx.ModelProto, extents: Mapping[str, int] | None = None) -> Cost:
    """Return what one run of a graph costs.

    `Gemm` and `MatMul` count 2 m n k. Other operators count one operation per entry: of
    their input where they reduce it, of their output elsewhere. A node reads each of
    its inputs once. Of the branches of an `If` the cheaper one counts; the graphs of
    this package choose it.

    Args:
        model: The model.
        extents: Values of the extents that the model leaves open, by name.

    Returns:
        The cost.

    Raises:
        ValueError: If an extent is open, a shape cannot be inferred, or an operator is
            none that this package uses.

    Example:
        >>> from keras_muon.export import newton_schulz
        >>> cost(newton_schulz((4, 8), steps=1)).flops
        839
    """
    fixed = _with_extents(model, extents or {})
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    flops, moved = _cost_of(inferred.graph, {})
    ports = {**_tensors(inferred.graph.input), **_tensors(inferred.graph.output)}
    return Cost(flops, moved, sum(size for _, size in ports.values()))


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph, and of the branches inside it."""
    for node in graph.node:
        yield node
        for branch in _branches(node):
            yield from nodes_of(branch)


def open_extents(model: onnx.ModelProto) -> list[str]:
    """Return the names of the extents that a model leaves open, in order."""
    names = [
        dimension.dim_param
        for value in model.graph.input
        for dimension in value.type.tensor_type.shape.dim
        if not dimension.HasField("dim_value")
    ]
    return list(dict.fromkeys(names))


def _with_extents(
    model: onnx.ModelProto, extents: Mapping[str, int]
) -> onnx.ModelProto:
    missing = [name for name in open_extents(model) if name not in extents]
    if missing:
        raise ValueError(
            f"The graph leaves the extents {missing} open, and its cost depends on "
            "them. Give each a value."
        )
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in [*fixed.graph.input, *fixed.graph.output]:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in extents:
                dimension.dim_value = extents[dimension.dim_param]
    return fixed


# Shape and bytes of a tensor, by its name.
Tensors = dict[str, tuple[Shape, int]]


def _cost_of(graph: onnx.GraphProto, outer: Tensors) -> tuple[int, int]:
    """Operations and bytes of a graph's nodes; `outer` is known around it."""
    values = [*graph.input, *graph.value_info, *graph.output]
    known = outer | _tensors(values) | _constants(graph)
    costs = [_node_cost(node, known) for node in graph.node]
    return sum(flops for flops, _ in costs), sum(moved for _, moved in costs)


def _branches(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]


def _node_cost(node: onnx.NodeProto, known: Tensors) -> tuple[int, int]:
    branches = _branches(node)
    if branches:
        return min(_cost_of(branch, known) for branch in branches)
    # A shape is known without its tensor.
    read = [] if node.op_type == "Shape" else filter(None, node.input)
    names = [*dict.fromkeys(read), *node.output]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"The shape of {unknown[0]!r} in the graph is not known.")
    moved = sum(known[name][1] for name in names)
    return _flops(node, [known[name][0] for name in node.input if name], known), moved


def _flops(node: onnx.NodeProto, inputs: Sequence[Shape], known: Tensors) -> int:
    written = math.prod(known[node.output[0]][0])
    if node.op_type in FREE:
        return 0
    if node.op_type == "MatMul":
        return 2 * written * inputs[0][-1]
    if node.op_type == "Gemm":
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        return 2 * written * inputs[0][0 if turned else 1]
    if node.op_type in PER_INPUT:
        return math.prod(inputs[0])
    if node.op_type in PER_OUTPUT:
        return written
    raise ValueError(f"The cost of the operator {node.op_type!r} is not known.")


def _tensors(values: Sequence[onnx.ValueInfoProto]) -> Tensors:
    found = {}
    for value in values:
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            shape = tuple(dimension.dim_value for dimension in tensor.shape.dim)
            found[value.name] = _sized(shape, tensor.elem_type)
    return found


def _constants(graph: onnx.GraphProto) -> Tensors:
    return {t.name: _sized(tuple(t.dims), t.data_type) for t in graph.initializer}


def _sized(shape: Shape, element_type: int) -> tuple[Shape, int]:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element_type)
    return shape, math.prod(shape) * dtype.itemsize
