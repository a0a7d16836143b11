"""What users pass as arrays, as NumPy arrays."""

import math
from typing import Any

import numpy as np

# Extensions of NumPy, which calls their kind "V" as it does that of records.
NARROW = ("bfloat16",)


def as_array(described: str, value: Any) -> np.ndarray:
    """Return a value as a NumPy array.

    Args:
        described: What it is, for the message.
        value: An array of NumPy, or of a framework whose arrays NumPy reads.

    Raises:
        TypeError: If NumPy cannot read it, or reads something else than numbers.

    Example:
        >>> as_array("a list", [[1.0]]).shape
        (1, 1)
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{described} cannot be read as a NumPy array ({error}). Pass one; of a "
            "tensor of PyTorch, tensor.detach().cpu().float().numpy()."
        ) from error
    if array.dtype.kind not in "biuf" and array.dtype.name not in NARROW:
        raise TypeError(
            f"{described} must be an array of numbers; received {value!r:.60} of type "
            f"{type(value).__name__}."
        )
    return array


def as_number(described: str, number: float, dtype: str) -> np.ndarray:
    """Return a number as an array without axes, in a dtype that holds it.

    Args:
        described: What it is, for the message.
        number: The number.
        dtype: The dtype.

    Raises:
        ValueError: If a finite number would be infinite.

    Example:
        >>> float(as_number("a half", 0.5, "float32"))
        0.5
    """
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(number, dtype)
        fits = bool(np.isfinite(array)) or not math.isfinite(number)
    except OverflowError:
        fits = False
    if not fits:
        raise ValueError(
            f"{described} has dtype {dtype}; {number!r} is too large. Pass at most "
            f"{np.finfo(dtype).max:.3g}."
        )
    return array


def require_no_narrowing(described: str, array: np.ndarray, dtype: str) -> None:
    """Refuse an array whose values another dtype cannot hold.

    Args:
        described: What it is, for the message.
        array: The array.
        dtype: What it will be cast to.

    Raises:
        ValueError: If the cast is not a safe one, as float64 to float32.

    Example:
        >>> require_no_narrowing("x", np.zeros(2, "float16"), "float32")
    """
    if np.can_cast(array.dtype, dtype, "safe"):
        return
    raise ValueError(
        f"{described} must have dtype {dtype}, or a narrower one; received "
        f"{array.dtype}. Cast it: array.astype({dtype!r})."
    )
