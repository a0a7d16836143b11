"""Plans for this backend and its device, and polar factors by them."""

from collections.abc import Collection
from typing import Any

import keras
from keras import ops

from keras_muon.compression import polar_factors
from keras_muon.devices import (
    multiplies_bfloat16,
    products_of_bfloat16,
    rounds_sums_once,
    runs_on_accelerator,
)
from keras_muon.in_turn import in_turn, in_turn_within
from keras_muon.keras_ops import KerasOps, wide_dtype
from keras_muon.messages import require_choice
from keras_muon.opaque_values import is_compiled_on_cpu
from keras_muon.plan import Loop, Plan
from keras_muon.plan_choice import (
    LARGEST_STACKED_ON_CPU,
    LARGEST_STACKED_WITHOUT_XLA,
    SMALLEST_NARROW,
    SMALLEST_NARROW_STACKED,
    plan_for,
)
from keras_muon.schedules import Schedule
from keras_muon.tensorflow_ops import TensorflowOps
from keras_muon.torch_ops import TorchOps
from keras_muon.xla_ops import XlaOps

Tensor = Any

COMPUTE_DTYPES = ("auto", "float32", "float64", "bfloat16", "float16")


def polar_factor(matrices: Tensor, plan: Plan, *, overwrites: bool = False) -> Tensor:
    """Return the polar factors of matrices (..., in, out).

    Args:
        matrices: Tensor whose last two axes are in and out.
        plan: How they are computed, from `planned`.
        overwrites: Whether the tensor may be written into, where that is faster.

    Returns:
        A tensor of the same shape, in the dtype of the products; in float32 or float64
        where a loop goes through a stack.
    """
    wide = ops.cast(matrices, wide_dtype(matrices))
    verbs = carrier(plan, overwrites, compiled=is_compiled_on_cpu(wide))
    if plan.loop == "none" or len(wide.shape) == 2:
        return polar_factors(wide, plan, verbs)

    def factor(matrix: Tensor) -> Tensor:
        return ops.cast(polar_factors(matrix, plan, verbs), matrix.dtype)

    if plan.loop == "in_stack":
        return in_turn_within(wide, factor)
    return ops.stack(in_turn(ops.unstack(wide), factor))


def planned(
    shape: tuple[int, ...],
    schedule: Schedule,
    steps: int | None,
    wide: str,
    compute_dtype: str,
    *,
    xla: bool = True,
    split: bool = False,
    differentiable: bool = False,
) -> Plan:
    """Return the plan for matrices, or stacks of them, on this backend's device.

    Args:
        shape: Extents of the tensor; the last two are in and out.
        schedule: The schedule.
        steps: Number of steps; None is the schedule's own.
        wide: Dtype of the update, `"float32"` or `"float64"`.
        compute_dtype: See `orthogonalize`.
        xla: Whether XLA compiles what is computed, where TensorFlow has the choice.
        split: Whether to save digits, see `keras_muon.split_products`.
        differentiable: Whether gradients are asked for: on TensorFlow, what XLA writes
            into a stack has none.

    Returns:
        The plan.
    """
    *stack, fan_in, fan_out = shape
    alone = not runs_on_accelerator() and fan_in * fan_out > _largest_stacked(xla)
    if compute_dtype == "auto":
        together = bool(stack) and not alone
        smallest = SMALLEST_NARROW_STACKED if together else SMALLEST_NARROW
        large = min(fan_in, fan_out) >= smallest
        narrow = wide == "float32" and large and multiplies_bfloat16(xla=xla)
        compute_dtype = "bfloat16" if narrow else wide
    return plan_for(
        fan_in,
        fan_out,
        schedule,
        compute_dtype,
        steps=steps,
        split=split,
        loop=_loop(xla and not differentiable) if stack and alone else "none",
        panelled=alone and keras.backend.backend() == "torch",
        fused=rounds_sums_once(),
    )


def dtype_reason(
    compute_dtype: str, planned_dtypes: Collection[str], *, xla: bool = True
) -> str:
    """Return why plans have their dtypes, in one sentence.

    Args:
        compute_dtype: See `orthogonalize`.
        planned_dtypes: Those of the plans.
        xla: Whether XLA compiles what is computed, where TensorFlow has the choice.
    """
    if compute_dtype != "auto":
        return f"dtype: {compute_dtype}, as compute_dtype asks."
    narrow = products_of_bfloat16(xla=xla)
    if "bfloat16" in planned_dtypes:
        return f"dtype: bfloat16 on large matrices, since {narrow.reason}."
    if "float32" not in planned_dtypes:
        return "dtype: as wide as the variables."
    if narrow.faster:
        return "dtype: not bfloat16, since no matrix is large enough to gain."
    return f"dtype: not bfloat16, since {narrow.reason}."


def _largest_stacked(xla: bool) -> int:
    """Return the entries of a matrix up to which stacks pay on a CPU."""
    fuses = xla or keras.backend.backend() != "tensorflow"
    return LARGEST_STACKED_ON_CPU if fuses else LARGEST_STACKED_WITHOUT_XLA


def _loop(xla: bool) -> Loop:
    """Return the loop in which this backend computes large matrices on a CPU.

    XLA writes into a stack where it is; TensorFlow without it would copy the stack.
    """
    apart = {"jax": False, "tensorflow": not xla, "torch": True}
    return "apart" if apart[keras.backend.backend()] else "in_stack"


def carrier(
    plan: Plan, overwrites: bool = False, *, compiled: bool = False
) -> KerasOps:
    """Return the verbs of this backend.

    Args:
        plan: What will be computed.
        overwrites: Whether matrices that are given may be written into.
        compiled: Whether they belong to a graph that is compiled for a CPU.
    """
    if keras.backend.backend() == "torch":
        return TorchOps(plan.panels, overwrites=overwrites)
    # Not small matrices on TensorFlow, whose stacks are no faster so.
    whole = compiled and plan.loop != "none" and not plan.split
    if keras.backend.backend() == "tensorflow":
        return TensorflowOps(whole_factors=whole)
    suits = compiled and XlaOps.suits(plan)
    return XlaOps(plan) if suits else KerasOps(whole_factors=whole)


def check_compute_dtype(compute_dtype: object) -> str:
    """Return `compute_dtype` if it is one that NS can use, or refuse it."""
    name = require_choice("compute_dtype", compute_dtype, COMPUTE_DTYPES)
    if name == "float64" and keras.backend.backend() == "jax":
        import jax

        if not jax.config.jax_enable_x64:
            raise ValueError(
                "`compute_dtype` 'float64' would be float32 on JAX, which computes in "
                "float64 only after jax.config.update('jax_enable_x64', True)."
            )
    return name
