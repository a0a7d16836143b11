"""A carrier of matrices that computes nothing: each verb becomes an ONNX node.

The mathematics of `keras_muon` runs on it as on tensors, and what it asked for is then
the graph. Only standard operators are used.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from keras_muon.export.arguments import EMULATED
from keras_muon.export.graph_writer import GraphWriter, Value, element_type
from keras_muon.plan import Side


class Recorder(GraphWriter):
    """The verbs of `MatrixOps` and `ElementOps` as nodes.

    Args:
        stacked: Whether matrices have a batch axis. `Gemm` takes single matrices only.
        scope: First part of the names of nodes.
        outer: The recorder of the surrounding graph, for a branch.
    """

    def __init__(
        self, *, stacked: bool = False, scope: str = "", outer: "Recorder | None" = None
    ):
        super().__init__(scope=scope, outer=outer)
        self.stacked = stacked
        self._prefix = f"{scope}/" if outer else ""
        self._steps = 0

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
        scaled_c = self._times(alpha, c, f"{role}/scaled_c")
        terms = [scaled_c, self._scaled_matmul(beta, product, f"{role}/scaled_matmul")]
        return self._product(role, "Add", terms, c.dtype)

    # Runtimes have no operator that computes half of a symmetric product.
    symmetric = fused

    def combined(self, alpha: float, x: Value, beta: float, y: Value) -> Value:
        terms = [
            self._times(alpha, x, "combined/first"),
            self._times(beta, y, "combined/second"),
        ]
        return self._product("combined", "Add", terms, x.dtype)

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

    def square(self, x: Value) -> Value:
        return self.node("Mul", [x, x], "square", x.dtype)

    def sqrt(self, x: Value) -> Value:
        return self.node("Sqrt", [x], "root", x.dtype)

    def power(self, x1: float, x2: Value) -> Value:
        base = self.constant(x1, x2.dtype)
        return self.node("Pow", [base, x2], "power", x2.dtype)

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

    def _scaled_matmul(self, beta: float, product: Value, role: str) -> Value:
        """beta * P; in float64 as P + (beta - 1) * P.

        ONNX Runtime would fuse a scale into the product that it is alone to read, and
        round it to float32 on the way (MatMulScaleFusion).
        """
        if product.dtype != "float64" or beta == 1.0:
            return self._times(beta, product, role)
        rest = self._times(beta - 1.0, product, f"{role}/rest")
        return self.node("Add", [product, rest], role, product.dtype)

    def _times(self, alpha: float, x: Value, role: str) -> Value:
        if alpha == 1.0:
            return x
        return self.node("Mul", [x, self.constant(alpha, x.dtype)], role, x.dtype)

    def _reduced(
        self, op_type: str, x: Value, axes: tuple[int, ...], role: str
    ) -> Value:
        name = "axes/" + ",".join(map(str, axes))
        chosen = self.initializer(name, np.asarray(axes, np.int64))
        return self.node(op_type, [x, chosen], role, x.dtype, keepdims=1)

    def _branch(
        self, x: Value, side: Side, iterate: Callable[..., Value]
    ) -> onnx.GraphProto:
        branch = Recorder(stacked=self.stacked, scope=side, outer=self)
        result = iterate(side, branch)
        stored = "float32" if x.dtype in EMULATED else x.dtype
        output = helper.make_tensor_value_info(result.name, element_type(stored), None)
        return helper.make_graph(branch.nodes, f"gram_on_side_{side}", [], [output])
