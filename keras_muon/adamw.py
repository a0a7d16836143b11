"""AdamW's direction for the variables that are not hidden matrices."""

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

Tensor = Any


class ElementOps(Protocol):
    """What a carrier must know beside `+`, `-`, `*` and `/`. `keras.ops` knows it."""

    def square(self, x: Tensor) -> Tensor:
        """Return X * X, entry by entry."""

    def sqrt(self, x: Tensor) -> Tensor:
        """Return the root of each entry."""

    def power(self, x1: float, x2: Tensor) -> Tensor:
        """Return x1 ** x2, in the dtype of x2."""


class AdamWState(NamedTuple):
    """The two moments of a gradient, per entry.

    Args:
        momentum: Moving average of the gradient.
        velocity: Moving average of its square.
    """

    momentum: Tensor
    velocity: Tensor


def bias_correction(
    step: Tensor, *, beta_1: float, beta_2: float, ops: ElementOps
) -> Tensor:
    """Return what makes up for moments that begin at zero, once for all variables.

    Args:
        step: Number of this step in the dtype of the state, counted from 1.
        beta_1: Decay of the first moment, in [0, 1).
        beta_2: Decay of the second moment, in [0, 1).
        ops: The carrier.

    Returns:
        sqrt(1 - beta_2 ** step) / (1 - beta_1 ** step).

    Source: Kingma and Ba 2015, arXiv:1412.6980, section 2, last paragraph.
    """
    return ops.sqrt(1.0 - ops.power(beta_2, step)) / (1.0 - ops.power(beta_1, step))


def adamw_direction(
    gradient: Tensor,
    state: AdamWState,
    correction: Tensor,
    *,
    shares: tuple[Any, Any],
    epsilon: Any,
    ops: ElementOps,
) -> tuple[Tensor, AdamWState]:
    """Return AdamW's step before the learning rate, and the state after it.

    Args:
        gradient: The gradient, in the dtype of the state.
        state: The moments before this step.
        correction: What `bias_correction` returned for this step.
        shares: Of a gradient in the first and the second moment: 1 - beta_1 and
            1 - beta_2, in (0, 1].
        epsilon: Added to the root of the second moment, in units of the gradient.
        ops: The carrier.

    Returns:
        The direction, to be multiplied by the rate and subtracted, and the new state.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter
    2019, arXiv:1711.05101. Bias correction and epsilon are placed as in Keras' AdamW.
    """
    momentum = state.momentum + (gradient - state.momentum) * shares[0]
    square = ops.square(gradient)
    velocity = state.velocity + (square - state.velocity) * shares[1]
    direction = momentum * correction / (ops.sqrt(velocity) + epsilon)
    return direction, AdamWState(momentum, velocity)


def refuse_what_vanishes(constants: Mapping[str, float], dtype: str) -> None:
    """Refuse constants that a dtype makes another rule of.

    Decays of 1 divide by zero or stop all steps, and an epsilon that becomes 0 is not
    the one that was asked for.

    Args:
        constants: Decays, and what has "epsilon" in its name, by their names.
        dtype: Of the state, `"float32"` or `"float64"`.

    Raises:
        ValueError: If a decay becomes 1, or a number becomes 0.

    Example:
        >>> refuse_what_vanishes({"beta_1": 0.9, "epsilon": 1e-7}, "float32")
    """
    for name, number in constants.items():
        rounded = _rounded(number, dtype)
        if ("epsilon" not in name and rounded == 1.0) or (number and not rounded):
            raise ValueError(
                f"`{name}` {number!r} is {rounded:g} in {dtype}. Pass a number that "
                f"{dtype} tells from it, or use float64."
            )


def _rounded(number: float, dtype: str) -> float:
    if dtype == "float64" or abs(number) > 3e38:
        return number
    return float(struct.unpack("f", struct.pack("f", number))[0])
