"""A carrier of matrices that computes nothing: each verb becomes an ONNX node.

The mathematics of `keras_muon` runs on it as on tensors, and what it asked for is then
the graph. Only standard operators are used.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from keras_muon.export.arguments import EMULATED
from keras_muon.newton_schulz import Side


@dataclasses.dataclass(frozen=True)
class Value:
    """The result of a node, or an input of the graph.

    Args:
        name: Its name in the graph.
        dtype: Its dtype. Emulated dtypes are stored as float32.
        recorder: Where operators on it are written down.
    """

    name: str
    dtype: str
    recorder: "Recorder" = dataclasses.field(repr=False, compare=False)

    def __add__(self, other: Any) -> "Value":
        return self.recorder.elementwise("Add", self, other)

    def __sub__(self, other: Any) -> "Value":
        return self.recorder.elementwise("Sub", self, other)

    def __rsub__(self, other: Any) -> "Value":
        return self.recorder.elementwise("Sub", other, self)

    def __mul__(self, other: Any) -> "Value":
        return self.recorder.elementwise("Mul", self, other)

    def __truediv__(self, other: Any) -> "Value":
        return self.recorder.elementwise("Div", self, other)


class Recorder:
    """The verbs of `MatrixOps` and `ElementOps` as nodes.

    Args:
        stacked: Whether matrices have a batch axis. `Gemm` takes single matrices only.
        scope: First part of the names of nodes; assign to it to begin another part.
        outer: The recorder of the surrounding graph, for a branch.
    """

    def __init__(
        self, *, stacked: bool, scope: str = "", outer: "Recorder | None" = None
    ):
        self.stacked = stacked
        self.scope = scope
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = outer.constants if outer else {}
        self._names: set[str] = outer._names if outer else set()
        self._prefix = f"{scope}/" if outer else ""
        self._steps = 0

    # Newton-Schulz ---------------------------------------------------------------

    def gram(self, x: Value, side: Side) -> Value:
        self._steps += 1
        self.scope = f"{self._prefix}step_{self._steps}"
        if not self.stacked:
            transposed = {"transB": 1} if side == "in" else {"transA": 1}
            return self._product("gram", "Gemm", [x, x], x.dtype, **transposed)
        turned = self.node("Transpose", [x], "transposed", x.dtype, perm=[0, 2, 1])
        pair = [x, turned] if side == "in" else [turned, x]
        return self._product("gram", "MatMul", pair, x.dtype)

    def fused(self, alpha: float, c: Value, beta: float, a: Value, b: Value) -> Value:
        # The polynomial b A + c A A holds the only square.
        role = "polynomial" if a is b else "product"
        # The factors of Gemm are float32, too coarse for float64.
        if not self.stacked and c.dtype != "float64":
            factors = {"alpha": beta, "beta": alpha}
            factors = {key: value for key, value in factors.items() if value != 1.0}
            return self._product(role, "Gemm", [a, b, c], c.dtype, **factors)
        product = self.node("MatMul", [a, b], f"{role}/matmul", c.dtype)
        terms = [
            self._times(alpha, c, f"{role}/scaled_c"),
            self._times(beta, product, f"{role}/scaled_matmul"),
        ]
        return self._product(role, "Add", terms, c.dtype)

    def scaled(self, alpha: float, x: Value) -> Value:
        factor = self.constant(alpha, x.dtype)
        return self._product("polynomial", "Mul", [x, factor], x.dtype)

    def divided(self, x: Value, y: Value, at_least: float) -> Value:
        floor = self.constant(at_least, y.dtype)
        divisor = self.node("Max", [y, floor], "divisor", y.dtype)
        return self.node("Div", [x, divisor], "divided", x.dtype)

    def largest_entry(self, x: Value) -> Value:
        absolute = self.node("Abs", [x], "absolute", x.dtype)
        return self._reduced("ReduceMax", absolute, (-2, -1), "largest_entry")

    def frobenius_norm(self, x: Value) -> Value:
        # Never ReduceL2, nor one sum over both axes: both lose three digits in float32.
        squares = self.node("Mul", [x, x], "squares", x.dtype)
        rows = self._reduced("ReduceSum", squares, (-1,), "sums_of_rows")
        total = self._reduced("ReduceSum", rows, (-2,), "sum_of_squares")
        return self.node("Sqrt", [total], "frobenius_norm", x.dtype)

    def cast(self, x: Value, dtype: str) -> Value:
        if dtype == x.dtype:
            return x
        if dtype in EMULATED:
            return self._rounded(x, dtype, "cast")
        if x.dtype in EMULATED:
            return dataclasses.replace(x, dtype=dtype)
        return self.node("Cast", [x], "cast", dtype, to=element_type(dtype))

    def on_short_side(self, x: Value, iterate: Callable[..., Value]) -> Value:
        """Return what `iterate` makes of X, on the side that is shorter at run time.

        Args:
            x: Matrices.
            iterate: Called with the side and the carrier of a branch.
        """
        self.scope = "orientation"
        extents = [
            self.node("Shape", [x], "fan_in", "int64", start=-2, end=-1),
            self.node("Shape", [x], "fan_out", "int64", start=-1),
        ]
        wide = self.node("LessOrEqual", extents, "is_wide", "bool")
        sides: list[tuple[str, Side]] = [("then_branch", "in"), ("else_branch", "out")]
        branches = {key: self._branch(x, side, iterate) for key, side in sides}
        return self.node("If", [wide], "iterated", x.dtype, **branches)

    # AdamW -----------------------------------------------------------------------

    def square(self, x: Value) -> Value:
        return self.node("Mul", [x, x], "square", x.dtype)

    def sqrt(self, x: Value) -> Value:
        return self.node("Sqrt", [x], "root", x.dtype)

    def power(self, x1: float, x2: Value) -> Value:
        base = self.constant(x1, x2.dtype)
        return self.node("Pow", [base, x2], "power", x2.dtype)

    # Nodes -----------------------------------------------------------------------

    def input(self, name: str, dtype: str) -> Value:
        """Return an input of the graph."""
        self._names.add(name)
        return Value(name, dtype, self)

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
        return self._initializer(f"{stored}/{number!r}", np.asarray(number, stored))

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
        return Value(name, dtype, self)

    def _product(
        self,
        role: str,
        op_type: str,
        inputs: Sequence[Value],
        dtype: str,
        **attributes: Any,
    ) -> Value:
        """A float32 product, rounded if a narrower dtype is emulated."""
        value = self.node(op_type, inputs, role, dtype, **attributes)
        return self._rounded(value, dtype, role) if dtype in EMULATED else value

    def _rounded(self, x: Value, dtype: str, role: str) -> Value:
        to, back = element_type(dtype), element_type("float32")
        narrow = self.node("Cast", [x], f"{role}/{dtype}", dtype, to=to)
        return self.node("Cast", [narrow], f"{role}/float32", dtype, to=back)

    def _times(self, alpha: float, x: Value, role: str) -> Value:
        if alpha == 1.0:
            return x
        return self.node("Mul", [x, self.constant(alpha, x.dtype)], role, x.dtype)

    def _reduced(
        self, op_type: str, x: Value, axes: tuple[int, ...], role: str
    ) -> Value:
        name = "axes/" + ",".join(map(str, axes))
        chosen = self._initializer(name, np.asarray(axes, np.int64))
        return self.node(op_type, [x, chosen], role, x.dtype, keepdims=1)

    def _branch(
        self, x: Value, side: Side, iterate: Callable[..., Value]
    ) -> onnx.GraphProto:
        branch = Recorder(stacked=self.stacked, scope=side, outer=self)
        result = iterate(side, branch)
        stored = "float32" if x.dtype in EMULATED else x.dtype
        output = helper.make_tensor_value_info(result.name, element_type(stored), None)
        return helper.make_graph(branch.nodes, f"gram_on_side_{side}", [], [output])

    def _initializer(self, name: str, array: np.ndarray) -> Value:
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
