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


def multiplies_bfloat16() -> bool:
    """Whether bfloat16 products are fast, and as good as the contract of quality asks.

    On torch they are, on CPUs with instructions for them and on accelerators with
    native units. XLA rounds products and sums apart: on a CPU, where it gains nothing
    either, the error on a rank of 1 was 1.9 instead of Jordan's 0.3.
    """
    if keras.backend.backend() != "torch":
        return False
    import torch

    if runs_on_accelerator():
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(False)
    # Of torch before 2.12 nothing public tells it.
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
