"""The steps of both rules on torch, written into state and weights where they are.

Outside of a compiler every expression would fill new memory, and on large matrices that
takes longer than the arithmetic. The formulas are those of `keras_muon.momentum` and
`keras_muon.adamw`; a test holds both forms to each other.
"""

from collections.abc import Sequence
from typing import Any

import keras

from keras_muon.bucket import Bucket
from keras_muon.muon_direction import kernels_of, polar_factors, scaled_factors

Tensor = Any
Variable = Any


def writes_in_place(optimizer: Any, indices: Sequence[int]) -> bool:
    """Whether these variables can be stepped in place.

    Args:
        optimizer: The `Muon` that holds settings and state.
        indices: Indices of the variables.

    Returns:
        False on other backends, for weights with master copies, where steps may be
        skipped, and in a `keras.StatelessScope`, which leaves all values alone.
    """
    return (
        keras.backend.backend() == "torch"
        and optimizer.nonfinite == "propagate"
        and not optimizer.is_stateless
        and all(optimizer.master_of(index) is None for index in indices)
    )


def step_matrices_in_place(
    optimizer: Any,
    indices: Sequence[int],
    gradients: Sequence[Tensor],
    variables: Sequence[Variable],
    rate: Tensor,
) -> None:
    """Move hidden matrices that share (fan_in, fan_out), see `steps.step_matrices`."""
    import torch

    bucket = optimizer.bucket_of(indices)
    weights = [variable.value for variable in variables]
    if len(weights) == 1:
        updates = _updates(optimizer, indices, gradients)
        # A factor of bfloat16 is not copied into float32 first.
        (factor,) = _factors(optimizer, bucket, updates)
        _decay(optimizer, indices, weights, rate, optimizer.weight_decay)
        (scale,) = bucket.step_factors(optimizer.scale)
        weights[0].addcmul_(factor, rate, value=-scale)
        return
    scales = bucket.scales(rate, optimizer.scale)
    momenta = optimizer.stacked_momenta(indices)
    if momenta is None:
        updates = _updates(optimizer, indices, gradients)
        changes = _factors(optimizer, bucket, updates, scales)
    else:
        stack = momenta.advanced(
            gradients, momentum=optimizer.momentum, nesterov=optimizer.nesterov
        )
        stack = scaled_factors(stack, bucket.plan, scales, overwrites=True)
        changes = kernels_of(stack, bucket.turned)
    _decay(optimizer, indices, weights, rate, optimizer.weight_decay)
    torch._foreach_sub_(weights, changes)


def step_by_adamw_in_place(
    optimizer: Any,
    indices: Sequence[int],
    gradients: Sequence[Tensor],
    variables: Sequence[Variable],
    rate: Tensor,
    decay: float | None,
) -> None:
    """Move variables of one dtype by an AdamW step, see `steps.step_by_adamw`.

    Args:
        optimizer: The `Muon` that holds settings and state.
        indices: Indices of the variables.
        gradients: Their gradients, in the dtype of the state.
        variables: What to assign to.
        rate: AdamW's learning rate.
        decay: Its weight decay.
    """
    import torch

    beta_1, beta_2 = optimizer.adam_beta_1, optimizer.adam_beta_2
    states = [optimizer.state_of(index) for index in indices]
    momenta = [momentum.value for momentum, _ in states]
    velocities = [velocity.value for _, velocity in states]
    torch._foreach_lerp_(momenta, gradients, 1.0 - beta_1)
    torch._foreach_mul_(velocities, _factor(beta_2, velocities))
    torch._foreach_addcmul_(velocities, gradients, gradients, 1.0 - beta_2)
    step = optimizer.adam_step(indices[0], rate.dtype)
    correction = (1.0 - beta_2**step).sqrt() / (1.0 - beta_1**step)
    weights = [variable.value for variable in variables]
    _decay(optimizer, indices, weights, rate, decay)
    divisors = torch._foreach_sqrt(velocities)
    torch._foreach_add_(divisors, optimizer.adam_epsilon)
    # A rate of zero makes them infinite, and the step zero.
    torch._foreach_div_(divisors, -rate * correction)
    torch._foreach_addcdiv_(weights, momenta, divisors)


def _updates(
    optimizer: Any, indices: Sequence[int], gradients: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Advance the momenta and return what is orthogonalized."""
    import torch

    momentum = optimizer.momentum
    states = [optimizer.state_of(index)[0].value for index in indices]
    torch._foreach_mul_(states, _factor(momentum, states))
    torch._foreach_add_(states, gradients)
    if not optimizer.nesterov:
        return states
    return torch._foreach_add(gradients, states, alpha=momentum)


def _factors(
    optimizer: Any,
    bucket: Bucket,
    updates: Sequence[Tensor],
    scale: Tensor | None = None,
) -> list[Tensor]:
    # Without Nesterov's step ahead the updates are the momenta themselves.
    own = optimizer.nesterov
    return polar_factors(
        updates, bucket.turned, plan=bucket.plan, scale=scale, overwrites=own
    )


def _decay(
    optimizer: Any,
    indices: Sequence[int],
    weights: Sequence[Tensor],
    rate: Tensor,
    decay: float | None,
) -> None:
    if not decay:
        return
    import torch

    pairs = zip(indices, weights, strict=True)
    decayed = [weight for index, weight in pairs if optimizer.decays(index)]
    if decayed:
        torch._foreach_mul_(decayed, 1.0 - rate * decay)


def _factor(number: float, tensors: Sequence[Tensor]) -> Tensor | float:
    """Return what all of the tensors are multiplied by fastest.

    On a CPU torch would make a tensor of a number for each of them.
    """
    import torch

    first = tensors[0]
    on_cpu = first.device.type == "cpu"
    return torch.tensor(number, dtype=first.dtype) if on_cpu else number
