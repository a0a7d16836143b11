"""Writing what a step computed: into state and weights, if it is usable."""

import contextlib
from typing import Any

import keras
from keras import ops

from keras_muon.momentum import decayed_step

Tensor = Any
Variable = Any


def usable(optimizer: Any, update: Tensor, *, squared: bool = False) -> Tensor | None:
    """Return whether a variable takes this step, or None if it takes every step.

    Args:
        optimizer: The `Muon` whose `nonfinite` decides.
        update: The variable's whole gradient, or what its momentum makes of it.
        squared: Whether the state takes in its square, which overflows before.

    Returns:
        A boolean tensor, false if the state would be infinite or not a number.
    """
    if optimizer.nonfinite == "propagate":
        return None
    remembered = ops.square(update) if squared else update
    return ops.all(ops.isfinite(remembered))


def write(
    optimizer: Any, variable: Variable, value: Tensor, use: Tensor | None
) -> None:
    """Assign a value, in the dtype of the variable, unless the step is skipped.

    Args:
        optimizer: The optimizer, which knows how its backend assigns.
        variable: A weight or a variable of the state.
        value: What to assign.
        use: What `usable` returned.
    """
    value = ops.cast(value, variable.dtype)
    if use is not None:
        value = ops.where(use, value, ops.convert_to_tensor(variable))
    optimizer.assign(variable, value)


def move(
    optimizer: Any,
    index: int,
    variable: Variable,
    change: Tensor,
    kept: Tensor | None,
    use: Tensor | None,
) -> None:
    """W <- kept * W - change, in the dtype of the change.

    A weight of float16 or bfloat16 has a master copy in float32, so that changes too
    small for its dtype add up instead of being lost. The copy counts only where it
    still rounds to the weight: what was loaded, constrained or averaged since then is
    the truth. A copy of zeros, as it begins, therefore needs no initial value.

    Args:
        optimizer: The `Muon` that holds the master copies.
        index: Index of the variable.
        variable: What to assign to.
        change: Its change.
        kept: Factor of weight decay; None keeps all of W.
        use: What `usable` returned.

    Source: Micikevicius et al. 2018, arXiv:1710.03740, section 3.1.
    """
    weight = ops.convert_to_tensor(variable)
    value = ops.cast(weight, change.dtype)
    master = optimizer.master_of(index)
    if master is not None:
        copy = ops.convert_to_tensor(master)
        value = ops.where(ops.equal(ops.cast(copy, weight.dtype), weight), copy, value)
    with _once_known(change):
        value = decayed_step(value, change, kept)
    if master is not None:
        write(optimizer, master, value, use)
    write(optimizer, variable, value, use)


def _once_known(change: Tensor) -> contextlib.AbstractContextManager:
    """Keep TensorFlow from decaying a weight, into new memory, before it is moved.

    It computes at once whatever waits for nothing.
    """
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.control_dependencies([change])
