"""Newton-Schulz of kernels that share their fans, in one stack."""

import itertools
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_muon.in_turn import in_turn
from keras_muon.kernels import from_matrices, stacked, to_matrices
from keras_muon.matrix_view import MatrixView
from keras_muon.opaque_values import (
    is_compiled_on_cpu,
    opaque_parts,
    shared_opaque_values,
)
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
        return scaled_factors(matrices, plan, scale, overwrites=overwrites)

    if plan.loop == "apart" and all(view.batch == 1 for view in views):
        matrices = [to_matrices(u, v) for u, v in zip(updates, views, strict=True)]
        factors = in_turn(matrices, scaled)
        return [from_matrices(f, v) for f, v in zip(factors, views, strict=True)]
    stack = stack_of(updates, views)
    if due is None:
        return kernels_of(scaled(stack), views)

    def scaled_in_branch() -> Tensor:
        with shared_opaque_values():
            return scaled(stack)

    return kernels_of(ops.cond(due, scaled_in_branch, lambda: stack), views)


def stack_of(kernels: Sequence[Tensor], views: Sequence[MatrixView]) -> Tensor:
    """Return the matrices of kernels as one stack; of one kernel, no copy if possible.

    Args:
        kernels: Tensors of one dtype.
        views: Their matrix views, all with the same fan_in and fan_out.
    """
    matrices = [to_matrices(k, v) for k, v in zip(kernels, views, strict=True)]
    return matrices[0] if len(matrices) == 1 else stacked(matrices)


def scaled_factors(
    matrices: Tensor, plan: Plan, scale: Tensor | None, *, overwrites: bool = False
) -> Tensor:
    """Return the polar factors of matrices (..., in, out), times a scale.

    Args:
        matrices: The matrices.
        plan: How the factors are computed.
        scale: See `polar_factors`.
        overwrites: Whether the matrices may be written into, on torch alone.
    """
    factor = polar_factor(matrices, plan, overwrites=overwrites)
    if scale is None:
        return factor
    if not overwrites:
        return ops.cast(factor, matrices.dtype) * scale
    if factor.dtype != matrices.dtype:
        # New memory of a wider dtype takes a tenth of a step of small matrices.
        factor = matrices.copy_(factor)
    return factor.mul_(scale)


def kernels_of(stack: Tensor, views: Sequence[MatrixView]) -> list[Tensor]:
    """Return the kernels that `stack_of` put together."""
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
