"""Whether new state may be written over old state, read from a graph's structure.

A runtime that is given one buffer for an input and an output overwrites the input
when the output's node runs. Nothing warns of a read that comes later.
"""

from collections.abc import Iterator, Mapping

import onnx

# Operators that read entry i only to write entry i.
ELEMENTWISE = frozenset({"Abs", "Add", "Cast", "Div", "Identity", "Mul", "Sqrt", "Sub"})


def check_alias_safety(model: onnx.ModelProto, state: Mapping[str, str]) -> None:
    """Refuse a graph that might read a state after its new value is written.

    Every node that reads a state must come before the node that writes the new value,
    by the data that flows between them; or be that node, if it is elementwise. The
    order of nodes in the file proves nothing: runtimes choose their own.

    Args:
        model: The model.
        state: The input that each output replaces.

    Raises:
        ValueError: If there is such a read, with the names of both nodes.

    Example:
        >>> model = onnx.parser.parse_model('''<ir_version: 8, opset_import: ["": 18]>
        ...     g (float[2] old) => (float[2] new, float[2] late)
        ...     { new = Neg(old)  late = Exp(old) }''')
        >>> check_alias_safety(model, {"new": "old"})
        Traceback (most recent call last):
        ValueError: Output 'new' may not share a buffer with input 'old': 'new' ...
    """
    nodes = {name: node for node in model.graph.node for name in node.output}
    for output, replaced in state.items():
        writer = nodes[output]
        before = _ancestors(writer, nodes)
        for reader in model.graph.node:
            if replaced not in set(_reads(reader)):
                continue
            safe = id(reader) in before
            if reader is writer:
                safe = reader.op_type in ELEMENTWISE
            if not safe:
                raise ValueError(
                    f"Output {output!r} may not share a buffer with input "
                    f"{replaced!r}: {_label(reader)!r} reads the input, and nothing "
                    f"makes it run before {_label(writer)!r} writes the output."
                )


def _ancestors(
    node: onnx.NodeProto, nodes: Mapping[str, onnx.NodeProto]
) -> dict[int, onnx.NodeProto]:
    """The nodes whose results a node needs, by identity."""
    found: dict[int, onnx.NodeProto] = {}
    open_ends = [node]
    while open_ends:
        for name in _reads(open_ends.pop()):
            source = nodes.get(name)
            if source is not None and id(source) not in found:
                found[id(source)] = source
                open_ends.append(source)
    return found


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads, those inside its branches included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _reads(inner)


def _label(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]
