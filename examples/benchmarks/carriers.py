"""How each backend of Keras calls an optimizer in training, and waits for it.

JAX compiles `stateless_apply` and is given the old state to reuse its memory.
TensorFlow wraps `apply` in a `tf.function`; `model.fit` compiles it with XLA where the
model allows it, which is `jit=True` here. PyTorch calls `apply` eagerly.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

Tensor = Any


class Carrier(Protocol):
    """What must be known of a backend."""

    def compiled(self, function: Callable) -> Callable:
        """Return a function of tensors as this backend would run it in training."""

    def wait(self, result: Any) -> None:
        """Return when a result is there."""

    def step(self, optimizer: Any, variables: Sequence, gradients: Sequence) -> "Step":
        """Return one step of an optimizer that is built for these variables."""


class Step(Protocol):
    """One whole optimizer step, again and again."""

    def __call__(self) -> None:
        """Take a step and wait until its results are there."""

    def weights(self) -> list[np.ndarray]:
        """Return the weights after the steps taken."""

    def state_bytes(self) -> int:
        """Return the bytes of all that the optimizer keeps between steps."""


def carrier(backend: str, jit: bool) -> Carrier:
    """Return the carrier of a backend.

    Args:
        backend: `"tensorflow"`, `"jax"` or `"torch"`: the one that Keras runs on.
        jit: Whether TensorFlow compiles with XLA. No other backend asks.
    """
    if backend == "jax":
        return JaxCarrier()
    return TensorflowCarrier(jit) if backend == "tensorflow" else TorchCarrier()


def bytes_of(tensors: Sequence) -> int:
    """Return the bytes of tensors, arrays or variables."""
    import keras

    return sum(
        int(np.prod(tuple(t.shape)))
        * np.dtype(keras.backend.standardize_dtype(t.dtype)).itemsize
        for t in tensors
    )


class JaxCarrier:
    """Compiled as a whole; state goes in and comes out."""

    def compiled(self, function: Callable) -> Callable:
        import jax

        return jax.jit(function)

    def wait(self, result: Any) -> None:
        import jax

        jax.block_until_ready(result)

    def step(
        self, optimizer: Any, variables: Sequence, gradients: Sequence
    ) -> "JaxStep":
        def update(weights, state, gradients):
            return optimizer.stateless_apply(state, gradients, weights)

        state = [variable.value for variable in optimizer.variables]
        return JaxStep(update, [v.value for v in variables], state, gradients)


class JaxStep:
    """A compiled function (weights, state, gradients) -> (weights, state)."""

    def __init__(self, update: Callable, weights: Any, state: Any, gradients: Sequence):
        import jax

        # Copies: the first step gives their memory away.
        copied = jax.tree.map(jax.numpy.array, (list(weights), state))
        self._weights, self._state = copied
        self._gradients = list(gradients)
        self._function = jax.jit(update, donate_argnums=(0, 1))
        self._executable: Any = None

    def __call__(self) -> None:
        import jax

        given = (self._weights, self._state, self._gradients)
        if self._executable is None:
            self._executable = self._function.lower(*given).compile()
        result = jax.block_until_ready(self._executable(*given))
        self._weights, self._state = result

    def weights(self) -> list[np.ndarray]:
        return [np.asarray(weight) for weight in self._weights]

    def state_bytes(self) -> int:
        import jax

        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))

    def temporary_bytes(self) -> int | None:
        """Return what XLA plans to allocate in a step, after the first one."""
        plan = self._executable.memory_analysis()
        if plan is None:
            return None
        new = plan.output_size_in_bytes - plan.alias_size_in_bytes
        return plan.temp_size_in_bytes + max(0, new)


class VariableStep:
    """A call that changes variables in place."""

    def __init__(self, call: Callable[[], None], variables: Sequence, state: Callable):
        self._call, self._variables, self._state = call, variables, state

    def __call__(self) -> None:
        self._call()

    def weights(self) -> list[np.ndarray]:
        import keras

        return [keras.ops.convert_to_numpy(v) for v in self._variables]

    def state_bytes(self) -> int:
        return bytes_of(self._state())


class TensorflowCarrier:
    """A `tf.function`, compiled with XLA or not."""

    def __init__(self, jit: bool):
        self._jit = jit

    def compiled(self, function: Callable) -> Callable:
        import tensorflow as tf

        return tf.function(function, jit_compile=self._jit)

    def wait(self, result: Any) -> None:
        import tensorflow as tf

        tf.test.experimental.sync_devices()

    def step(
        self, optimizer: Any, variables: Sequence, gradients: Sequence
    ) -> VariableStep:
        update = self.compiled(
            lambda given: optimizer.apply(given, trainable_variables=variables)
        )
        return VariableStep(
            lambda: self.wait(update(gradients)), variables, lambda: optimizer.variables
        )


class TorchCarrier:
    """Eager, without gradients of its own."""

    def compiled(self, function: Callable) -> Callable:
        import torch

        return torch.no_grad()(function)

    def wait(self, result: Any) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def step(
        self, optimizer: Any, variables: Sequence, gradients: Sequence
    ) -> VariableStep:
        update = self.compiled(lambda: optimizer.apply(gradients, variables))
        return VariableStep(
            lambda: self.wait(update()), variables, lambda: optimizer.variables
        )
