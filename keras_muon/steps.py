"""One step of each rule: read the state, compute, write state and variables."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_muon.adamw import AdamWState, adamw_direction
from keras_muon.momentum import decayed_step, nesterov_update
from keras_muon.muon_direction import polar_factors

Tensor = Any
Variable = Any


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
    views = [optimizer.routes[index].matrix_view for index in indices]
    updates = [
        _advance_momentum(optimizer, index, gradient)
        for index, gradient in zip(indices, gradients, strict=True)
    ]
    changes = polar_factors(
        updates,
        views,
        triples=optimizer.triples,
        compute_dtype=optimizer.compute_dtype,
        due=_due(optimizer),
        scale=rate * optimizer.scale(views[0].fan_in, views[0].fan_out),
    )
    kept = 1.0 - rate * optimizer.weight_decay if optimizer.weight_decay else None
    for index, variable, change in zip(indices, variables, changes, strict=True):
        _move(optimizer, variable, change, kept if optimizer.decays(index) else None)


def step_by_adamw(
    optimizer: Any, index: int, gradient: Tensor, variable: Variable, rate: Tensor
) -> None:
    """Move one variable by an AdamW step.

    Args:
        optimizer: The `Muon` that holds settings and state.
        index: Index of the variable.
        gradient: Its gradient, in the dtype of the state.
        variable: What to assign to.
        rate: Muon's learning rate in the dtype of the state.
    """
    state = optimizer.state_of(index)
    direction, new_state = adamw_direction(
        gradient,
        AdamWState(*map(ops.convert_to_tensor, state)),
        ops.cast(optimizer.iterations + 1, gradient.dtype),
        beta_1=optimizer.adam_beta_1,
        beta_2=optimizer.adam_beta_2,
        epsilon=optimizer.adam_epsilon,
        ops=ops,
    )
    for variable_of_state, value in zip(state, new_state, strict=True):
        optimizer.assign(variable_of_state, value)
    rate = ops.cast(optimizer.adam_rate(rate), gradient.dtype)
    same = optimizer.adam_weight_decay == "same"
    decay = optimizer.weight_decay if same else optimizer.adam_weight_decay
    decay = _decay_of(optimizer, index, decay)
    _move(optimizer, variable, rate * direction, 1.0 - rate * decay if decay else None)


def _advance_momentum(optimizer: Any, index: int, gradient: Tensor) -> Tensor:
    (state,) = optimizer.state_of(index)
    update, new_state = nesterov_update(
        gradient,
        ops.convert_to_tensor(state),
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
    )
    optimizer.assign(state, new_state)
    return update


def _decay_of(optimizer: Any, index: int, decay: float | None) -> float:
    return decay if decay and optimizer.decays(index) else 0.0


def _move(
    optimizer: Any, variable: Variable, change: Tensor, kept: Tensor | None
) -> None:
    """Write `decayed_step`, computed in the dtype of the change."""
    value = ops.cast(ops.convert_to_tensor(variable), change.dtype)
    value = decayed_step(value, change, kept)
    optimizer.assign(variable, ops.cast(value, variable.dtype))


def _due(optimizer: Any) -> Tensor | None:
    """Whether this call of JAX is a real step; elsewhere every call is.

    While gradients accumulate, Keras on JAX computes every step and discards all but
    the last of each cycle.
    """
    every = optimizer.gradient_accumulation_steps
    if not every or keras.backend.backend() != "jax":
        return None
    return ops.equal((optimizer.micro_step + 1) % every, 0)
