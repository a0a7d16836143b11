"""A carrier of matrices that computes nothing: each verb becomes an ONNX node.

The mathematics of `keras_muon` runs on it as on tensors, and what it asked for is then
the graph. Only standard operators are used.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from keras_muon.export.arguments import EMULATED
from keras_muon.export.graph_writer import Value, element_type
from keras_muon.export.product_nodes import COMPRESSION, ProductNodes
from keras_muon.plan import Side


class Recorder(ProductNodes):
    """The verbs of `MatrixOps` and `ElementOps` as nodes."""

    def combined(self, alpha: float, x: Value, beta: float, y: Value) -> Value:
        terms = [
            self.times(alpha, x, "combined/first"),
            self.times(beta, y, "combined/second"),
        ]
        return self.rounded_node("combined", "Add", terms, x.dtype)

    def scaled(self, alpha: float, x: Value) -> Value:
        factor = self.constant(alpha, x.dtype)
        return self.rounded_node("scaled", "Mul", [x, factor], x.dtype)

    def on_grid(self, x: Value, bits: int) -> Value:
        finer = self.times(2.0**bits, x, "whole_numbers/exact")
        whole = self.node("Round", [finer], "whole_numbers", x.dtype)
        return self.times(2.0**-bits, whole, "on_grid")

    def multiplied(self, x: Value, y: Value) -> Value:
        pair = [x, self.cast(y, x.dtype)]
        return self.rounded_node("multiplied", "Mul", pair, x.dtype)

    def divided(self, x: Value, y: Value, dtype: str) -> Value:
        pair = [x, self.cast(y, x.dtype)]
        return self.cast(self.rounded_node("divided", "Div", pair, x.dtype), dtype)

    def reciprocal(self, y: Value) -> Value:
        # Not 1 / Y: ONNX Runtime would divide X by Y where they are multiplied.
        return self.node("Reciprocal", [y], "reciprocal", y.dtype)

    def at_least(self, y: Value, least: float) -> Value:
        pair = [y, self.constant(least, y.dtype)]
        return self.node("Max", pair, "at_least", y.dtype)

    def root(self, y: Value) -> Value:
        return self.node("Sqrt", [y], "root", y.dtype)

    def rest_of_one(self, y: Value, at_least: float) -> Value:
        self.scope = f"{self._prefix}{COMPRESSION}"
        rest = self.elementwise("Sub", 1.0, self.square(y))
        return self.root(self.at_least(rest, at_least**2))

    def largest_entry(self, x: Value) -> Value:
        absolute = self.node("Abs", [x], "absolute", x.dtype)
        return self._reduced("ReduceMax", absolute, (-2, -1), "largest_entry")

    def frobenius_norm(self, x: Value) -> Value:
        x = self.cast(x, "float64" if x.dtype == "float64" else "float32")
        # Never ReduceL2, nor one sum over both axes: both lose three digits in float32.
        squares = self.node("Mul", [x, x], "squares", x.dtype)
        rows = self._reduced("ReduceSum", squares, (-1,), "sums_of_rows")
        total = self._reduced("ReduceSum", rows, (-2,), "sum_of_squares")
        return self.node("Sqrt", [total], "frobenius_norm", x.dtype)

    def cast(self, x: Value, dtype: str) -> Value:
        if dtype == x.dtype:
            return x
        if dtype in EMULATED:
            return self.rounded(x, dtype, "cast")
        if x.dtype in EMULATED:
            return dataclasses.replace(x, dtype=dtype)
        return self.node("Cast", [x], "cast", dtype, to=element_type(dtype))

    def dtype_of(self, x: Value) -> str:
        return x.dtype

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

    # `ElementOps` calls it as keras.ops does.
    sqrt = root

    def power(self, x1: float, x2: Value) -> Value:
        base = self.constant(x1, x2.dtype)
        return self.node("Pow", [base, x2], "power", x2.dtype)

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
