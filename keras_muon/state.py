"""The variables that the optimizer keeps per model variable."""

import math
from collections.abc import Iterable
from typing import Any

import keras

Variable = Any

# Sums over many steps lose small terms in these; their state is kept in float32.
NARROW_DTYPES = ("float16", "bfloat16")


def state_dtype(variable: Variable) -> str:
    """Return the dtype of a variable's state: its own, but at least float32."""
    if is_narrow(variable):
        return "float32"
    return keras.backend.standardize_dtype(variable.dtype)


def is_narrow(variable: Variable) -> bool:
    """Whether the dtype of a variable or tensor is narrower than its state's."""
    return keras.backend.standardize_dtype(variable.dtype) in NARROW_DTYPES


def add_state(optimizer: Any, variable: Variable, name: str) -> Variable:
    """Return a new optimizer variable of zeros beside a model variable.

    Args:
        optimizer: The `keras.optimizers.Optimizer` that keeps it.
        variable: The model variable, whose shape and layout it takes.
        name: What it holds, such as `"momentum"`.

    Returns:
        A `keras.Variable` that the optimizer tracks and saves.
    """
    if not is_narrow(variable):
        return optimizer.add_variable_from_reference(variable, name=name)
    arguments = {
        "shape": variable.shape,
        "dtype": state_dtype(variable),
        "layout": getattr(variable, "_layout", None),
        "name": f"{variable.path.replace('/', '_')}_{name}",
    }
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # What add_variable_from_reference does for variables of its own dtype.
        strategy = tf.distribute.get_strategy()
        with strategy.extended.colocate_vars_with(variable.value):
            return optimizer.add_variable(**arguments)
    return optimizer.add_variable(**arguments)


def bytes_of(variables: Iterable[Variable | None], *, copies: int = 1) -> int:
    """Return the bytes that variables occupy.

    Args:
        variables: Variables; None counts for nothing.
        copies: How many tensors of that size.

    Returns:
        Bytes, at the dtype that the state of each variable has.
    """
    sizes = {"float64": 8}
    return sum(
        copies * math.prod(v.shape) * sizes.get(state_dtype(v), 4)
        for v in variables
        if v is not None
    )
