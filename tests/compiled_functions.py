"""Functions in graphs of the backend in use."""

import keras


def compiled(function):
    """The function in a graph of the backend, without XLA and with it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return [tf.function(function, jit_compile=xla) for xla in (False, True)]
    if keras.backend.backend() == "jax":
        import jax

        return [jax.jit(function)]
    return []
