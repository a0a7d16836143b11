"""What users pass as arrays, as NumPy arrays."""

from typing import Any

import numpy as np


def as_array(described: str, value: Any) -> np.ndarray:
    """Return a value as a NumPy array.

    Args:
        described: What it is, for the message.
        value: An array of NumPy, or of a framework whose arrays NumPy reads.

    Raises:
        TypeError: If NumPy cannot read it.

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
