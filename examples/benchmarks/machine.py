"""What a benchmark ran on: device, threads, versions."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PEERS = (
    "keras-muon",
    "keras",
    "tensorflow",
    "jax",
    "jaxlib",
    "optax",
    "torch",
    "numpy",
)


def versions() -> dict[str, str | None]:
    """Return the installed versions of all that race; None for what is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def frameworks(backend: str) -> dict[str, Any]:
    """Return the device that a backend computes on, and its threads.

    Args:
        backend: The one that Keras runs on, in this process.
    """
    cores = len(os.sched_getaffinity(0))
    kind, name = _DEVICES[backend]()
    threads: int | None = cores
    if backend == "torch":
        import torch

        threads = torch.get_num_threads()
    return {
        "device kind": kind,
        "device": _processor() if kind == "cpu" else name,
        "cores": cores,
        "threads": threads,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def _of_jax() -> tuple[str, str]:
    import jax

    device = jax.devices()[0]
    return ("cpu" if device.platform == "cpu" else "cuda"), device.device_kind


def _of_tensorflow() -> tuple[str, str]:
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return "cpu", ""
    details = tf.config.experimental.get_device_details(devices[0])
    return "cuda", details.get("device_name", devices[0].name)


def _of_torch() -> tuple[str, str]:
    import torch

    if not torch.cuda.is_available():
        return "cpu", ""
    return "cuda", torch.cuda.get_device_name()


_DEVICES = {"jax": _of_jax, "tensorflow": _of_tensorflow, "torch": _of_torch}


def _processor() -> str:
    """Return the name of the processor; Linux tells it in a file."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
