"""One step of each rule: read the state, compute, write state and variables."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_muon.adamw import AdamWState, adamw_direction, bias_correction
from keras_muon.momentum import nesterov_update
from keras_muon.muon_direction import polar_factors
from keras_muon.opaque_values import shared_constant
from keras_muon.torch_steps import (
    step_by_adamw_in_place,
    step_matrices_in_place,
    writes_in_place,
)
from keras_muon.writing import move, usable, write

Tensor = Any
Variable = Any


def _as_written(function: Callable) -> Callable:
    """Keep AutoGraph of TensorFlow from rewriting a function and all that it calls.

    There are no conditions on tensors in them, and rewriting took longer than tracing.
    What users wrote, schedules and constraints, is called elsewhere.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(function)


@_as_written
def step_matrices(
    optimizer: Any,
    indices: Sequence[int],
    gradients: Sequence[Tensor],
    variables: Sequence[Variable],
    rate: Tensor,
) -> None:
    """Move hidden matrices that share (fan_in, fan_out) by one Muon step.

    Args:
        optimizer: The `Muon` that holds settings, routes and state.
        indices: Indices of the variables.
        gradients: Their gradients, in the dtype of the state.
        variables: What to assign to.
        rate: The learning rate in the dtype of the state.
    """
    if writes_in_place(optimizer, indices):
        step_matrices_in_place(optimizer, indices, gradients, variables, rate)
        return
    bucket = optimizer.bucket_of(indices)
    momentum = shared_constant(optimizer.momentum, rate.dtype)
    updates, uses = zip(
        *(
            _advance_momentum(optimizer, index, gradient, momentum)
            for index, gradient in zip(indices, gradients, strict=True)
        ),
        strict=True,
    )
    changes = polar_factors(
        updates,
        bucket.turned,
        plan=bucket.plan,
        due=_due(optimizer),
        scale=bucket.scales(rate, optimizer.scale),
    )
    kept = 1.0 - rate * optimizer.weight_decay if optimizer.weight_decay else None
    moves = zip(indices, variables, changes, uses, strict=True)
    for index, variable, change, use in moves:
        decayed = kept if optimizer.decays(index) else None
        move(optimizer, index, variable, change, decayed, use)


def step_by_adamw(
    optimizer: Any,
    indices: Sequence[int],
    gradients: Sequence[Tensor],
    variables: Sequence[Variable],
    rate: Tensor,
) -> None:
    """Move variables of one dtype, whose moments began together, by an AdamW step.

    Args:
        optimizer: The `Muon` that holds settings and state.
        indices: Indices of the variables.
        gradients: Their gradients, in the dtype of the state.
        variables: What to assign to.
        rate: Muon's learning rate in the dtype of the state.
    """
    rate = ops.cast(optimizer.adam_rate(rate), gradients[0].dtype)
    same = optimizer.adam_weight_decay == "same"
    decay = optimizer.weight_decay if same else optimizer.adam_weight_decay
    if writes_in_place(optimizer, indices):
        step_by_adamw_in_place(optimizer, indices, gradients, variables, rate, decay)
        return
    _step_each_by_adamw(optimizer, indices, gradients, variables, rate, decay)


@_as_written
def _step_each_by_adamw(
    optimizer: Any,
    indices: Sequence[int],
    gradients: Sequence[Tensor],
    variables: Sequence[Variable],
    rate: Tensor,
    decay: float | None,
) -> None:
    betas = (optimizer.adam_beta_1, optimizer.adam_beta_2)
    step = optimizer.adam_step(indices[0], rate.dtype)
    correction = bias_correction(step, beta_1=betas[0], beta_2=betas[1], ops=ops)
    shares = tuple(shared_constant(1.0 - beta, rate.dtype) for beta in betas)
    epsilon = shared_constant(optimizer.adam_epsilon, rate.dtype)
    kept = 1.0 - rate * decay if decay else None
    for index, gradient, variable in zip(indices, gradients, variables, strict=True):
        state = optimizer.state_of(index)
        use = usable(optimizer, gradient, squared=True)
        direction, new_state = adamw_direction(
            gradient,
            AdamWState(*map(ops.convert_to_tensor, state)),
            correction,
            shares=shares,
            epsilon=epsilon,
            ops=ops,
        )
        for variable_of_state, value in zip(state, new_state, strict=True):
            write(optimizer, variable_of_state, value, use)
        decayed = kept if optimizer.decays(index) else None
        move(optimizer, index, variable, rate * direction, decayed, use)


def _advance_momentum(
    optimizer: Any,
    index: int,
    gradient: Tensor,
    momentum: Any,
) -> tuple[Tensor, Tensor | None]:
    (state,) = optimizer.state_of(index)
    update, new_state = nesterov_update(
        gradient,
        ops.convert_to_tensor(state),
        momentum=momentum,
        nesterov=optimizer.nesterov,
    )
    # Of finite gradients, too, the sum may be infinite.
    use = usable(optimizer, update)
    write(optimizer, state, new_state, use)
    return update, use


def _due(optimizer: Any) -> Tensor | None:
    """Whether this call of JAX is a real step; elsewhere every call is.

    While gradients accumulate, Keras on JAX computes every step and discards all but
    the last of each cycle.
    """
    every = optimizer.gradient_accumulation_steps
    if not every or keras.backend.backend() != "jax":
        return None
    return ops.equal((optimizer.micro_step + 1) % every, 0)
