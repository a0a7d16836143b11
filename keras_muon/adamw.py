"""AdamW's direction for the variables that are not hidden matrices."""

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


def adamw_direction(
    gradient: Tensor,
    state: AdamWState,
    step: Tensor,
    *,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    ops: ElementOps,
) -> tuple[Tensor, AdamWState]:
    """Return AdamW's step before the learning rate, and the state after it.

    Args:
        gradient: The gradient, in the dtype of the state.
        state: The moments before this step.
        step: Number of this step in the dtype of the state, counted from 1.
        beta_1: Decay of the first moment, in [0, 1).
        beta_2: Decay of the second moment, in [0, 1).
        epsilon: Added to the root of the second moment, in units of the gradient.
        ops: The carrier.

    Returns:
        The direction, to be multiplied by the rate and subtracted, and the new state.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter
    2019, arXiv:1711.05101. Bias correction and epsilon are placed as in Keras' AdamW.
    """
    momentum = state.momentum + (gradient - state.momentum) * (1.0 - beta_1)
    square = ops.square(gradient)
    velocity = state.velocity + (square - state.velocity) * (1.0 - beta_2)
    correction = ops.sqrt(1.0 - ops.power(beta_2, step)) / (
        1.0 - ops.power(beta_1, step)
    )
    direction = momentum * correction / (ops.sqrt(velocity) + epsilon)
    return direction, AdamWState(momentum, velocity)
