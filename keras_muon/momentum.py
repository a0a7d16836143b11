"""Momentum and the decoupled step, as arithmetic on any carrier.

Nothing here asks what a tensor is: tensors of a Keras backend and recorded ONNX values
both know `+`, `-` and `*`.
"""

from typing import Any

Tensor = Any


def nesterov_update(
    gradient: Tensor, momentum_state: Tensor, *, momentum: float, nesterov: bool
) -> tuple[Tensor, Tensor]:
    """Return the update to orthogonalize, and the momentum after this step.

    Args:
        gradient: The gradient G, in the dtype of the momentum.
        momentum_state: The momentum M before this step.
        momentum: Its decay, in [0, 1).
        nesterov: Whether to look one step ahead.

    Returns:
        U = G + momentum * M (or M), and M = momentum * M + G.

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025,
    arXiv:2502.16982, equation (1).
    """
    new_state = momentum_state * momentum + gradient
    return (gradient + new_state * momentum if nesterov else new_state), new_state


def decayed_step(value: Tensor, change: Tensor, kept: Tensor | None) -> Tensor:
    """Return a weight after its step: kept * W - change.

    Args:
        value: The weight W, in the dtype of the change.
        change: What to subtract, the learning rate included.
        kept: 1 - learning_rate * weight_decay. None keeps all of W.

    Returns:
        The new weight.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
    """
    return (value if kept is None else value * kept) - change
