"""Newton-Schulz of kernels that share their fans, in one stack."""

import itertools
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_muon.in_turn import in_turn
from keras_muon.kernels import from_matrices, stacked, to_matrices
from keras_muon.matrix_view import MatrixView
from keras_muon.opaque_values import is_compiled_on_cpu, opaque_parts
from keras_muon.plan import Plan
from keras_muon.planning import polar_factor

Tensor = Any


def polar_factors(
    updates: Sequence[Tensor],
    views: Sequence[MatrixView],
    *,
    plan: Plan,
    due: Tensor | None = None,
    scale: Tensor | None = None,
    overwrites: bool = False,
) -> list[Tensor]:
    """Return the polar factors of kernels that share (fan_in, fan_out), as one stack.

    Args:
        updates: One tensor per kernel, all of one dtype.
        views: Their matrix views, all with the same fan_in and fan_out.
        plan: How the factors are computed.
        due: A boolean tensor: skip the iteration and return the updates if it is
            False. None is True.
        scale: What to multiply the factors by, once for the whole stack. None leaves
            them as they are, in the dtype of the products.
        overwrites: Whether the updates may be written into, on torch alone.

    Returns:
        Tensors of the kernels' shapes.
    """

    def scaled(matrices: Tensor) -> Tensor:
        factor = polar_factor(matrices, plan, overwrites=overwrites)
        if scale is None:
            return factor
        if overwrites:
            # New memory of a wider dtype takes a tenth of a step of small matrices.
            return matrices.copy_(factor).mul_(scale)
        return ops.cast(factor, matrices.dtype) * scale

    matrices = [to_matrices(u, v) for u, v in zip(updates, views, strict=True)]
    if plan.loop == "apart" and all(view.batch == 1 for view in views):
        factors = in_turn(matrices, scaled)
        return [from_matrices(f, v) for f, v in zip(factors, views, strict=True)]
    stack = matrices[0] if len(matrices) == 1 else stacked(matrices)
    if due is None:
        return _unstacked(scaled(stack), views)
    return _unstacked(ops.cond(due, lambda: scaled(stack), lambda: stack), views)


def _unstacked(stack: Tensor, views: Sequence[MatrixView]) -> list[Tensor]:
    if len(views) == 1:
        return [from_matrices(stack, views[0])]
    counts = [view.batch for view in views]
    if is_compiled_on_cpu(stack):
        parts = opaque_parts(stack, counts)
    elif max(counts) == 1:
        # One operation for all, where slices are several each.
        parts = ops.unstack(stack, len(views), axis=0)
    else:
        ends = list(itertools.accumulate(counts))
        parts = [stack[a:b] for a, b in itertools.pairwise([0, *ends])]
    return [from_matrices(part, view) for part, view in zip(parts, views, strict=True)]
