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


# NVIDIA's compute capability from which there are bfloat16 units.
FIRST_WITH_BFLOAT16 = 8.0


def multiplies_bfloat16() -> bool:
    """Whether bfloat16 products are faster than float32 ones, as far as one can know.

    On TPUs and newer GPUs they are. On CPUs that have instructions for them, torch uses
    these; XLA does not, which is how `fit` runs JAX and, where it can, TensorFlow.
    """
    if keras.backend.backend() == "torch":
        return _torch_multiplies_bfloat16()
    return runs_on_accelerator() and _capability() >= FIRST_WITH_BFLOAT16


def _torch_multiplies_bfloat16() -> bool:
    import torch

    if runs_on_accelerator():
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(False)
    # Of torch before 2.12 nothing public tells it.
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def _capability() -> float:
    """Return the compute capability of the first GPU; what is none counts as new."""
    if keras.backend.backend() == "jax":
        import jax

        return float(getattr(jax.devices()[0], "compute_capability", "inf"))
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        if "compute_capability" in details:
            major, minor = details["compute_capability"]
            return float(f"{major}.{minor}")
    return float("inf")
