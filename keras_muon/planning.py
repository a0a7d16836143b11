"""Plans for this backend and its device, and polar factors by them."""

from typing import Any

import keras
from keras import ops

from keras_muon.compression import polar_factors
from keras_muon.devices import multiplies_bfloat16, runs_on_accelerator
from keras_muon.keras_ops import KerasOps, wide_dtype
from keras_muon.messages import unknown_name
from keras_muon.plan import (
    LARGEST_STACKED_ON_CPU,
    SMALLEST_NARROW,
    SMALLEST_NARROW_STACKED,
    Plan,
    plan_for,
)
from keras_muon.schedules import Schedule
from keras_muon.torch_ops import TorchOps

Tensor = Any

COMPUTE_DTYPES = ("auto", "float32", "float64", "bfloat16", "float16")


def polar_factor(matrices: Tensor, plan: Plan) -> Tensor:
    """Return the polar factors of matrices (..., in, out).

    Args:
        matrices: Tensor whose last two axes are in and out.
        plan: How they are computed, from `planned`.

    Returns:
        A tensor of the same shape, in the dtype of the products; in float32 or float64
        where a loop writes the factors into the stack.
    """
    wide, verbs = ops.cast(matrices, wide_dtype(matrices)), carrier(plan)
    if not plan.one_by_one:
        return polar_factors(wide, plan, verbs)
    if keras.backend.backend() == "torch":
        return ops.stack([polar_factors(matrix, plan, verbs) for matrix in wide])
    return _one_after_the_other(wide, plan, verbs)


def planned(
    shape: tuple[int, ...],
    schedule: Schedule,
    steps: int | None,
    wide: str,
    compute_dtype: str,
    *,
    xla: bool = True,
) -> Plan:
    """Return the plan for matrices, or stacks of them, on this backend's device.

    Args:
        shape: Extents of the tensor; the last two are in and out.
        schedule: The schedule.
        steps: Number of steps; None is the schedule's own.
        wide: Dtype of the update, `"float32"` or `"float64"`.
        compute_dtype: See `orthogonalize`.
        xla: Whether XLA compiles what is computed, where TensorFlow has the choice.

    Returns:
        The plan.
    """
    *stack, fan_in, fan_out = shape
    alone = not runs_on_accelerator() and fan_in * fan_out > LARGEST_STACKED_ON_CPU
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
        one_by_one=bool(stack) and alone,
        panelled=alone and keras.backend.backend() == "torch",
    )


def _one_after_the_other(stack: Tensor, plan: Plan, verbs: KerasOps) -> Tensor:
    """Replace the matrices of a stack by their factors.

    One graph for all, compiled once. A loop that filled a second stack would need
    twice the memory.
    """
    count, *fans = stack.shape

    def body(number: Tensor, stack: Tensor) -> Tensor:
        start = (number, 0, 0)
        matrix = ops.reshape(ops.slice(stack, start, (1, *fans)), fans)
        factor = ops.cast(polar_factors(matrix, plan, verbs), stack.dtype)
        return ops.slice_update(stack, start, ops.reshape(factor, (1, *fans)))

    return ops.fori_loop(0, count, body, stack)


def carrier(plan: Plan) -> KerasOps:
    """Return the verbs of this backend, with the panels that a plan wants."""
    torch = keras.backend.backend() == "torch"
    return TorchOps(plan.panels) if torch else KerasOps()


def check_compute_dtype(compute_dtype: object) -> str:
    """Return `compute_dtype` if it is one that NS can use, or refuse it."""
    if compute_dtype not in COMPUTE_DTYPES:
        raise unknown_name("compute_dtype", compute_dtype, COMPUTE_DTYPES)
    if compute_dtype == "float64" and keras.backend.backend() == "jax":
        import jax

        if not jax.config.jax_enable_x64:
            raise ValueError(
                "`compute_dtype` 'float64' would be float32 on JAX, which computes in "
                "float64 only after jax.config.update('jax_enable_x64', True)."
            )
    return str(compute_dtype)
