"""Nodes and constants of a graph, written down one by one under readable names."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from keras_muon.export.arguments import EMULATED
from keras_muon.export.arrays import as_number

# Which input has the extents of the result, where a node may have one that has them.
EXTENTS_FROM = {"Add": 0, "Cast": 0, "Div": 0, "Gemm": 2, "Mul": 0, "Round": 0}


@dataclasses.dataclass(frozen=True)
class Value:
    """The result of a node, or an input of the graph.

    Args:
        name: Its name in the graph.
        dtype: Its dtype. Emulated dtypes are stored as float32.
        writer: Where operators on it are written down.
        extents: Of a single matrix, where products depend on them; else None.
    """

    name: str
    dtype: str
    writer: "GraphWriter" = dataclasses.field(repr=False, compare=False)
    extents: tuple[int, int] | None = None

    def with_extents(self, extents: tuple[int, int]) -> "Value":
        """Return the same value, its extents known."""
        return dataclasses.replace(self, extents=extents)

    def __add__(self, other: Any) -> "Value":
        return self.writer.elementwise("Add", self, other)

    def __sub__(self, other: Any) -> "Value":
        return self.writer.elementwise("Sub", self, other)

    def __rsub__(self, other: Any) -> "Value":
        return self.writer.elementwise("Sub", other, self)

    def __mul__(self, other: Any) -> "Value":
        return self.writer.elementwise("Mul", self, other)

    def __truediv__(self, other: Any) -> "Value":
        return self.writer.elementwise("Div", self, other)


class GraphWriter:
    """A graph in the making.

    Args:
        scope: First part of the names of nodes; assign to it to begin another part.
        outer: The writer of the surrounding graph, for a branch. Both share names and
            constants.
    """

    def __init__(self, *, scope: str = "", outer: "GraphWriter | None" = None):
        self.scope = scope
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = outer.constants if outer else {}
        self._names: set[str] = outer._names if outer else set()

    def input(
        self, name: str, dtype: str, extents: tuple[int, int] | None = None
    ) -> Value:
        """Return an input of the graph."""
        self._names.add(name)
        return Value(name, dtype, self, extents)

    def output(self, value: Value, name: str) -> Value:
        """Give a result the name that it has as an output of the graph."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [name if old == value.name else old for old in names]
        return dataclasses.replace(value, name=name)

    def elementwise(self, op_type: str, x: Any, y: Any) -> Value:
        """Return x op y, where one of them may be a number."""
        dtype = x.dtype if isinstance(x, Value) else y.dtype
        x, y = (v if isinstance(v, Value) else self.constant(v, dtype) for v in (x, y))
        return self.node(op_type, [x, y], op_type.lower(), dtype)

    def constant(self, number: float, dtype: str) -> Value:
        """Return a number as a tensor without axes, one per number and dtype."""
        stored = "float32" if dtype in EMULATED else dtype
        array = as_number("A constant of this graph", number, stored)
        return self.initializer(f"{stored}/{number!r}", array)

    def node(
        self,
        op_type: str,
        inputs: Sequence[Value],
        role: str,
        dtype: str,
        **attributes: Any,
    ) -> Value:
        """Write down a node and return its result."""
        name = self._unique(f"{self.scope}/{role}")
        names = [value.name for value in inputs]
        self.nodes.append(helper.make_node(op_type, names, [name], name, **attributes))
        place = EXTENTS_FROM.get(op_type, len(inputs))
        extents = inputs[place].extents if place < len(inputs) else None
        return Value(name, dtype, self, extents)

    def initializer(self, name: str, array: np.ndarray) -> Value:
        """Return an array as a value, stored once per name."""
        self.constants.setdefault(name, numpy_helper.from_array(array, name))
        return Value(name, array.dtype.name, self)

    def _unique(self, name: str) -> str:
        count, unique = 1, name
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return unique


def element_type(dtype: str) -> int:
    """Return the number that ONNX has for a dtype's name."""
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    return int(onnx.TensorProto.DataType.Value(names.get(dtype, dtype.upper())))
