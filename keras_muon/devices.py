"""What the backend that Keras chose computes on."""

import keras


def runs_on_accelerator() -> bool:
    """Whether the backend that Keras chose computes on a GPU or TPU by default."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if keras.backend.backend() == "torch":
        return keras.ops.zeros(()).device.type != "cpu"
    import tensorflow as tf

    return any(d.device_type != "CPU" for d in tf.config.list_logical_devices())
