"""Symmetric products in row panels: what lies below the diagonal is mirrored.

Runtimes have no operator that computes half of a symmetric product. So a panel of rows
is computed from the diagonal to the right, and what is left of it comes, transposed,
from the panels above. It is to graphs what `keras_muon.panels` is to torch.
"""

from typing import Any

import numpy as np

from keras_muon.export.arguments import SMALLEST_PANELLED
from keras_muon.export.graph_writer import GraphWriter, Value
from keras_muon.matrix_ops import Turned
from keras_muon.products import panel_edges

# First and last index (exclusive) by axis.
Ranges = dict[int, tuple[int, int]]


class PanelProducts(GraphWriter):
    """A graph in the making, with symmetric products of single matrices.

    Args:
        panels: Number of panels of a large product; 1 leaves all of them whole.
        scope: First part of the names of nodes.
        outer: The writer of the surrounding graph, for a branch.
    """

    def __init__(
        self,
        *,
        panels: int = 1,
        scope: str = "",
        outer: "PanelProducts | None" = None,
    ):
        super().__init__(scope=scope, outer=outer)
        self.panels = panels
        self._parts: dict[tuple[Any, ...], Value] = {}

    def in_panels(self, x: Value, turned: Turned) -> bool:
        """Whether X X^T, or X^T X with the left turned, is computed in panels.

        Args:
            x: Either factor of a symmetric product.
            turned: Which factor is transposed.
        """
        # Extents are not followed into compression, so its small products stay whole.
        if self.panels == 1 or x.extents is None:
            return False
        return x.extents[_axis(turned)] >= SMALLEST_PANELLED

    def panelled(
        self,
        role: str,
        a: Value,
        b: Value,
        turned: Turned,
        c: Value | None = None,
        **factors: float,
    ) -> Value:
        """Return the symmetric alpha A B^T + beta C, or A^T B, not rounded.

        Args:
            role: Last part of the name of the result, and middle part of the others.
            a: The left factor.
            b: The right factor.
            turned: Which factor is transposed.
            c: Symmetric third term, or None.
            **factors: Attributes of `Gemm`.
        """
        assert a.extents is not None
        axis = _axis(turned)
        size = a.extents[axis]
        factors |= {"transA" if turned == "left" else "transB": 1}
        edges = panel_edges(size, self.panels)
        panels = []
        for number, (start, end) in enumerate(edges, start=1):
            terms = [
                self._part(a, {axis: (start, end)}, f"{role}/left_{number}"),
                self._part(b, {axis: (start, size)}, f"{role}/right_{number}"),
            ]
            if c is not None:
                place = {0: (start, end), 1: (start, size)}
                terms.append(self._part(c, place, f"{role}/third_{number}"))
            name = f"{role}/panel_{number}"
            panels.append(self.node("Gemm", terms, name, a.dtype, **factors))
        rows = [self._row(role, panels[: n + 1], edges) for n in range(len(panels))]
        whole = self.node("Concat", rows, role, a.dtype, axis=0)
        for row, panel, (start, end) in zip(rows, panels, edges, strict=True):
            # What the next product would cut out again.
            self._parts[_key(whole, {0: (start, end)})] = row
            self._parts[_key(whole, {0: (start, end), 1: (start, size)})] = panel
        return whole.with_extents((size, size))

    def _row(
        self, role: str, panels: list[Value], edges: list[tuple[int, int]]
    ) -> Value:
        """The last of some panels, completed to the left by those above it."""
        number = len(panels)
        start, end = edges[number - 1]
        if number == 1:
            return panels[0]
        blocks = []
        for above, panel in enumerate(panels[:-1], start=1):
            name = f"{role}/panel_{above}/above_{number}"
            first = edges[above - 1][0]  # The panel begins at this column.
            block = self._part(panel, {1: (start - first, end - first)}, name)
            name = f"{role}/panel_{number}/mirrored_{above}"
            blocks.append(self.node("Transpose", [block], name, panel.dtype))
        blocks.append(panels[-1])
        name = f"{role}/rows_{number}"
        return self.node("Concat", blocks, name, panels[-1].dtype, axis=1)

    def _part(self, x: Value, ranges: Ranges, role: str) -> Value:
        """The entries of X in some ranges; what was cut out before is used again."""
        extents = x.extents
        if extents and all(ranges[axis] == (0, extents[axis]) for axis in ranges):
            return x
        key = _key(x, ranges)
        if key not in self._parts:
            starts, ends = zip(*ranges.values(), strict=True)
            places = [self._indices(values) for values in (starts, ends, list(ranges))]
            self._parts[key] = self.node("Slice", [x, *places], role, x.dtype)
        return self._parts[key]

    def _indices(self, values: Any) -> Value:
        name = "indices/" + ",".join(map(str, values))
        return self.initializer(name, np.asarray(values, np.int64))


def _key(x: Value, ranges: Ranges) -> tuple[Any, ...]:
    return (x.name, *ranges.items())


def _axis(turned: Turned) -> int:
    """The axis of X that X X^T, or X^T X, keeps."""
    return 1 if turned == "left" else 0
