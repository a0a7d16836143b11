"""What the backend that Keras chose computes on."""

import os
from pathlib import Path
from typing import NamedTuple

import keras

# Instruction sets of x86 that multiply bfloat16: units of their own, and a part of
# AVX-512. Processors of Intel that have float16 beside the latter (Sapphire Rapids and
# later) leave bfloat16 to the former. Where a hypervisor hides those, a step of GPT-2
# takes 1.7 times as long with it as in float32; on an EPYC, products take 1 / 2.3.
_UNITS, _VECTORS = "amx_bf16", "avx512_bf16"
_SLOW_VECTORS = frozenset({"GenuineIntel", "avx512_fp16"})

# The first compute capability of NVIDIA's whose units do.
_FIRST_CUDA = 8


def runs_on_accelerator() -> bool:
    """Whether the backend that Keras chose computes on a GPU or TPU by default."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if keras.backend.backend() == "torch":
        return keras.ops.zeros(()).device.type != "cpu"
    import tensorflow as tf

    return any(d.device_type != "CPU" for d in tf.config.list_logical_devices())


class BfloatProducts(NamedTuple):
    """What is known of products of bfloat16.

    Args:
        faster: Whether they are faster than those of float32.
        reason: Why, or why not, in a few words.
    """

    faster: bool
    reason: str


def products_of_bfloat16(*, xla: bool = True) -> BfloatProducts:
    """Return whether products of bfloat16 are faster than those of float32, and why.

    On accelerators they are where units are native. On CPUs with fast instructions for
    them they are on torch and on TensorFlow without XLA, both by oneDNN; XLA itself
    multiplies them in float32, and converts each time.

    Args:
        xla: Whether XLA compiles what is computed. Only TensorFlow has the choice.
    """
    backend = keras.backend.backend()
    if runs_on_accelerator():
        if _has_native_units(backend):
            return BfloatProducts(True, "the device has units for it")
        return BfloatProducts(False, "the device has no units for it")
    if backend == "torch":
        return _on_cpu(_features_by_torch())
    if backend == "jax":
        return BfloatProducts(False, "XLA converts it for each product on a CPU")
    if xla:
        reason = "XLA may compile the steps, and converts it for each product on a CPU"
        return BfloatProducts(False, reason)
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") == "0":
        return BfloatProducts(False, "TensorFlow needs oneDNN for it")
    return _on_cpu(cpu_features())


def multiplies_bfloat16(*, xla: bool = True) -> bool:
    """Whether products of bfloat16 are faster, see `products_of_bfloat16`."""
    return products_of_bfloat16(xla=xla).faster


def rounds_sums_once() -> bool:
    """Whether alpha C + beta A B of a narrow dtype is one kernel, and rounded once.

    On torch it is on CPUs. On CUDA parts of a sum may be rounded before they are added,
    of other accelerators it is not known, and the other backends multiply first.
    """
    return keras.backend.backend() == "torch" and not runs_on_accelerator()


def cpu_features() -> frozenset[str]:
    """Return vendor and instruction sets of a CPU.

    In the words of Linux, which lists them; elsewhere none are known.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    first, _, _ = text.partition("\n\n")
    lines = (line.partition(":") for line in first.splitlines())
    known = {name.strip(): value for name, _, value in lines}
    return frozenset(f"{known.get('vendor_id', '')} {known.get('flags', '')}".split())


def _on_cpu(features: frozenset[str]) -> BfloatProducts:
    if _UNITS in features:
        return BfloatProducts(True, "the CPU has units for it (AMX)")
    if _VECTORS not in features:
        return BfloatProducts(False, "no fast instructions of the CPU are known")
    if features >= _SLOW_VECTORS:
        return BfloatProducts(False, "the CPU's units for it (AMX) are hidden")
    return BfloatProducts(True, "the CPU has instructions for it (AVX-512)")


def _has_native_units(backend: str) -> bool:
    if backend == "jax":
        return _jax_has_native_bfloat16()
    if backend == "torch":
        import torch

        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(False)
    return _tensorflow_has_native_bfloat16()


def _jax_has_native_bfloat16() -> bool:
    import jax

    # Of CUDA devices JAX tells it as "9.0"; TPUs have no such attribute.
    capability = getattr(jax.devices()[0], "compute_capability", None)
    if capability is None:
        return True
    major, _, _ = str(capability).partition(".")
    return not major.isdigit() or int(major) >= _FIRST_CUDA


def _tensorflow_has_native_bfloat16() -> bool:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return all(
        d.get("compute_capability", (_FIRST_CUDA, 0)) >= (_FIRST_CUDA, 0)
        for d in details
    )


def _features_by_torch() -> frozenset[str]:
    import torch

    # Of torch before 2.12 nothing public tells it.
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    features = {name for name, value in known.items() if value is True}
    if str(known.get("cpu_name")).startswith("Intel"):
        features.add("GenuineIntel")
    return frozenset(features)
