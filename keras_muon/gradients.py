"""Gradients as the optimizer wants them: one per variable, dense, at least float32."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_muon.state import is_narrow, state_dtype

Tensor = Any
Variable = Any

# What users compute gradients in without a backend.
ARRAYS = (np.ndarray, np.generic, list, tuple, float, int)


def prepared(
    gradients: Sequence[Tensor | None], variables: Sequence[Variable] | None
) -> list[Tensor | None]:
    """Return gradients checked, with sparse ones dense and narrow ones float32.

    Keras squares the sparse gradients of TensorFlow before it sums repeated tokens,
    and cannot divide them by a loss scale; torch adds none of its own in place. Keras
    clips float16 gradients by norms that overflow in float16.

    Args:
        gradients: A tensor or array per variable, or None where there is none.
        variables: The variables, or None if they are not known yet.

    Returns:
        The gradients in the same order.

    Raises:
        ValueError: If there are some, but not as many as variables, if a shape
            differs, or if a variable is there twice.
    """
    dense = _densified(gradients)
    if any(issubclass(kind, ARRAYS) for kind in set(map(type, dense))):
        dense = [_as_tensor(gradient) for gradient in dense]
    if dense and variables is not None:
        _check_shapes(dense, variables)
        require_unique("trainable_variables", variables)
    # There are few dtypes: what is small is stepped faster than its dtype is looked up.
    kinds = {gradient.dtype: gradient for gradient in dense if gradient is not None}
    narrow = {dtype for dtype, gradient in kinds.items() if is_narrow(gradient)}
    return [
        keras.ops.cast(gradient, state_dtype(gradient))
        if gradient is not None and gradient.dtype in narrow
        else gradient
        for gradient in dense
    ]


def require_unique(argument: str, variables: Sequence[Variable]) -> None:
    """Refuse variables of which one is there twice: its steps would not add up.

    Args:
        argument: What the caller's user calls them.
        variables: `keras.Variable`s.

    Raises:
        ValueError: If one of them is there twice.
    """
    if len(set(map(id, variables))) == len(variables):
        return
    seen: set[int] = set()
    for variable in variables:
        if id(variable) in seen:
            raise ValueError(
                f"`{argument}` has {variable.path!r} twice: its steps in one call "
                "would not add up. Pass it once, with the sum of its gradients."
            )
        seen.add(id(variable))


def _check_shapes(gradients: Sequence[Any], variables: Sequence[Variable]) -> None:
    if len(gradients) != len(variables):
        raise ValueError(
            f"`grads` must have one entry per variable, None where there is no "
            f"gradient; received {len(gradients)} for {len(variables)} variables."
        )
    for gradient, variable in zip(gradients, variables, strict=True):
        if gradient is None:
            continue
        shape, wanted = tuple(gradient.shape), tuple(variable.shape)
        if shape == wanted:
            continue
        # On TensorFlow an extent may be unknown until the graph runs.
        fits = len(shape) == len(wanted) and all(
            extent in (None, other) for extent, other in zip(shape, wanted, strict=True)
        )
        if not fits:
            raise ValueError(
                f"The gradient of {variable.path!r} has shape {shape}, but the "
                f"variable has shape {wanted}. Pass the gradients in the order of "
                "the variables."
            )


def _as_tensor(gradient: Any) -> Tensor:
    if not isinstance(gradient, ARRAYS):
        return gradient
    return keras.ops.convert_to_tensor(np.asarray(gradient))


def _densified(gradients: Sequence[Any]) -> list[Any]:
    backend = keras.backend.backend()
    if backend == "jax":
        return list(gradients)
    if backend == "torch":
        import torch

        # What is no tensor, or no gradient, has no layout. Sparse ones come from
        # `torch.nn.Embedding(sparse=True)`.
        layouts = [getattr(g, "layout", torch.strided) for g in gradients]
        pairs = zip(gradients, layouts, strict=True)
        return [g if kind is torch.strided else g.to_dense() for g, kind in pairs]
    import tensorflow as tf

    return [
        tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g
        for g in gradients
    ]
