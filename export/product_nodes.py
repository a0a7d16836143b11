"""Matrix products as ONNX nodes, rounded where a narrow dtype is emulated."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_muon.export.arguments import EMULATED
from keras_muon.export.graph_writer import Value, element_type
from keras_muon.export.panel_products import PanelProducts
from keras_muon.leading import GROUP, Signs
from keras_muon.matrix_ops import DerivedVerbs, Turned
from keras_muon.plan import Side

# First part of the names of the nodes that compress leading singular values.
COMPRESSION = "compressed"


class ProductNodes(PanelProducts, DerivedVerbs):
    """The verbs of `MatrixOps` that multiply matrices.

    Args:
        stacked: Whether matrices have a batch axis. `Gemm` takes single matrices only.
        panels: Number of panels of a large symmetric product of single matrices.
        scope: First part of the names of nodes.
        outer: The writer of the surrounding graph, for a branch.
    """

    def __init__(
        self,
        *,
        stacked: bool = False,
        panels: int = 1,
        scope: str = "",
        outer: "ProductNodes | None" = None,
    ):
        super().__init__(panels=panels, scope=scope, outer=outer)
        self.stacked = stacked
        self._prefix = f"{scope}/" if outer else ""
        self._steps = 0

    def gram(self, x: Value, side: Side) -> Value:
        # Steps that share a Gram matrix share its number in the names.
        self._steps += 1
        self.scope = f"{self._prefix}step_{self._steps}"
        turned: Turned = "right" if side == "in" else "left"
        if self.in_panels(x, turned):
            return self._as_emulated(self.panelled("gram", x, x, turned), "gram")
        return self._turned_product("gram", x, x, turned)

    def fused(self, alpha: float, c: Value, beta: float, a: Value, b: Value) -> Value:
        return self._fused("product", alpha, c, beta, a, b)

    def applied(self, identity: float, total: Value, x: Value, side: Side) -> Value:
        left, right = (total, x) if side == "in" else (x, total)
        return self.fused(identity, x, 1.0, left, right)

    def symmetric(
        self, alpha: float, c: Value, beta: float, a: Value, b: Value
    ) -> Value:
        # B is B^T, whose panels are rows too.
        if not self.in_panels(a, "right"):
            return self._fused("polynomial", alpha, c, beta, a, b)
        if c.dtype == "float64":
            product = self.panelled("polynomial/matmul", a, b, "right")
            return self._added("polynomial", alpha, c, beta, product)
        factors = _gemm_factors(alpha, beta)
        whole = self.panelled("polynomial", a, b, "right", c, **factors)
        return self._as_emulated(whole, "polynomial")

    def squared(self, x: Value) -> Value:
        if self.in_panels(x, "right"):
            return self._as_emulated(self.panelled("square", x, x, "right"), "square")
        op_type = "MatMul" if self.stacked else "Gemm"
        return self.rounded_node("square", op_type, [x, x], x.dtype)

    def product(self, a: Value, b: Value, turned: Turned) -> Value:
        # Only compression asks for products without a third term.
        self.scope = f"{self._prefix}{COMPRESSION}"
        return self._turned_product("product", a, b, turned)

    def mixed(self, x: Value, signs: Signs, side: Side) -> Value:
        self.scope = f"{self._prefix}{COMPRESSION}"
        array = np.array(signs, np.float32)
        groups, mixtures, _ = array.shape
        stack = [0] if self.stacked else []  # 0 keeps an extent, known or not
        if side == "in":
            weights = self._signs("signs", array, x)
            grouped = self._reshaped(x, [*stack, groups, GROUP, -1], "groups")
            sums = self.rounded_node("sums", "MatMul", [weights, grouped], x.dtype)
            return self._reshaped(sums, [*stack, groups * mixtures, -1], "mixed")
        weights = self._signs("signs/turned", array.swapaxes(-1, -2), x)
        grouped = self._reshaped(x, [*stack, 0, groups, GROUP], "groups")
        grouped = self._exchanged(grouped, "groups/first")
        sums = self.rounded_node("sums", "MatMul", [grouped, weights], x.dtype)
        sums = self._exchanged(sums, "sums/last")
        return self._reshaped(sums, [*stack, 0, groups * mixtures], "mixed")

    def rounded_node(
        self,
        role: str,
        op_type: str,
        inputs: Sequence[Value],
        dtype: str,
        **attributes: Any,
    ) -> Value:
        """Return a result that is rounded if a narrower dtype is emulated."""
        return self._as_emulated(
            self.node(op_type, inputs, role, dtype, **attributes), role
        )

    def rounded(self, x: Value, dtype: str, role: str) -> Value:
        """Return a float32 value rounded to a narrower dtype and back."""
        to, back = element_type(dtype), element_type("float32")
        narrow = self.node("Cast", [x], f"{role}/{dtype}", dtype, to=to)
        return self.node("Cast", [narrow], f"{role}/float32", dtype, to=back)

    def times(self, alpha: float, x: Value, role: str) -> Value:
        """Return alpha * X, not rounded; X itself for 1."""
        if alpha == 1.0:
            return x
        return self.node("Mul", [x, self.constant(alpha, x.dtype)], role, x.dtype)

    def _as_emulated(self, x: Value, role: str) -> Value:
        return self.rounded(x, x.dtype, role) if x.dtype in EMULATED else x

    def _turned_product(self, role: str, a: Value, b: Value, turned: Turned) -> Value:
        if not self.stacked:
            transposed = {"transA" if turned == "left" else "transB": 1}
            return self.rounded_node(role, "Gemm", [a, b], a.dtype, **transposed)
        other = a if turned == "left" else b
        other = self.node("Transpose", [other], "transposed", a.dtype, perm=[0, 2, 1])
        pair = [other, b] if turned == "left" else [a, other]
        return self.rounded_node(role, "MatMul", pair, a.dtype)

    def _fused(
        self, role: str, alpha: float, c: Value, beta: float, a: Value, b: Value
    ) -> Value:
        # The factors of Gemm are float32, too coarse for float64.
        if not self.stacked and c.dtype != "float64":
            factors = _gemm_factors(alpha, beta)
            return self.rounded_node(role, "Gemm", [a, b, c], c.dtype, **factors)
        product = self.node("MatMul", [a, b], f"{role}/matmul", c.dtype)
        return self._added(role, alpha, c, beta, product)

    def _added(
        self, role: str, alpha: float, c: Value, beta: float, product: Value
    ) -> Value:
        scaled_c = self.times(alpha, c, f"{role}/scaled_c")
        terms = [scaled_c, self._scaled_matmul(beta, product, f"{role}/scaled_matmul")]
        return self.rounded_node(role, "Add", terms, c.dtype)

    def _scaled_matmul(self, beta: float, product: Value, role: str) -> Value:
        """beta * P; in float64 as P + (beta - 1) * P.

        ONNX Runtime would fuse a scale into the product that it is alone to read, and
        round it to float32 on the way (MatMulScaleFusion).
        """
        if product.dtype != "float64" or beta == 1.0:
            return self.times(beta, product, role)
        rest = self.times(beta - 1.0, product, f"{role}/rest")
        return self.node("Add", [product, rest], role, product.dtype)

    def _signs(self, name: str, array: np.ndarray, x: Value) -> Value:
        stored = "float64" if x.dtype == "float64" else "float32"
        return self.initializer(f"{stored}/{name}", array.astype(stored))

    def _reshaped(self, x: Value, extents: list[int], role: str) -> Value:
        name = "shape/" + ",".join(map(str, extents))
        shape = self.initializer(name, np.asarray(extents, np.int64))
        return self.node("Reshape", [x, shape], role, x.dtype)

    def _exchanged(self, x: Value, role: str) -> Value:
        """Exchange the axes of rows and of groups."""
        perm = [0, 2, 1, 3] if self.stacked else [1, 0, 2]
        return self.node("Transpose", [x], role, x.dtype, perm=perm)


def _gemm_factors(alpha: float, beta: float) -> dict[str, float]:
    """Attributes of Gemm for alpha * C + beta * A @ B; it has them the other way."""
    factors = {"alpha": beta, "beta": alpha}
    return {key: value for key, value in factors.items() if value != 1.0}
