"""Sessions of ONNX Runtime: on the device that was asked for, one per graph."""

import contextlib
import functools
import io
import os
from typing import Any

import onnx

from keras_muon.export.extras import INSTALL_RUNTIME, require_onnxruntime
from keras_muon.messages import require_choice, require_count, require_flag

Session = Any

DEVICES = ("auto", "cpu", "cuda")
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
INSTALL_CUDA = 'pip install "keras-muon[onnxruntime-gpu-cuda]"'

# More make nothing faster, and a number of another order stops the whole machine.
MOST_THREADS = 1024

# More graphs than a large model has buckets; each costs little memory.
SESSIONS_KEPT = 128


def session_for(
    content: bytes,
    *,
    device: str = "auto",
    tf32: bool = False,
    threads: int | None = None,
) -> Session:
    """Return a session that runs a graph, a cached one if there is one.

    Args:
        content: The bytes of an ONNX file.
        device: `"cpu"`, `"cuda"`, or `"auto"` for CUDA where there is a device.
        tf32: Whether CUDA may round the factors of float32 products to 10 bits. That
            is faster; results differ by about 1e-3.
        threads: Threads of a CPU, up to 1024. None takes all that this process may use.

    Returns:
        An `onnxruntime.InferenceSession`.

    Raises:
        ImportError: If ONNX Runtime is not installed.
        RuntimeError: If `device` is `"cuda"` and ONNX Runtime would use the CPU.
        ValueError: If an argument is out of range.
    """
    runtime = require_onnxruntime()
    require_flag("tf32", tf32)
    count = usable_cpus() if threads is None else _thread_count(threads)
    return _session(runtime, content, chosen_device(device), tf32, count)


def chosen_device(device: str) -> str:
    """Return `"cpu"` or `"cuda"`; `"auto"` looks for a device of NVIDIA."""
    if require_choice("device", device, DEVICES) != "auto":
        return device
    # Not get_available_providers(): it lists what the wheel was built for.
    list_devices = getattr(require_onnxruntime(), "get_ep_devices", None)
    found = {entry.ep_name for entry in list_devices()} if list_devices else set()
    return "cuda" if CUDA in found else "cpu"


def usable_cpus() -> int:
    """Return how many CPUs this process may use, where a container limits them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _thread_count(threads: int) -> int:
    count = require_count("threads", threads)
    if count > MOST_THREADS:
        raise ValueError(
            f"`threads` must be at most {MOST_THREADS}; received {threads}. Leave it "
            f"out for all {usable_cpus()} CPUs that this process may use."
        )
    return count


@functools.lru_cache(maxsize=SESSIONS_KEPT)
def _session(
    runtime: Any, content: bytes, device: str, tf32: bool, threads: int
) -> Session:
    session = runtime.InferenceSession(
        content,
        _options(runtime, threads),
        providers=_providers(runtime, device, tf32),
        disabled_optimizers=_inexact_fusions(content),
    )
    if device == "cuda" and CUDA not in session.get_providers():
        raise RuntimeError(
            "`device` is 'cuda', but ONNX Runtime fell back to the CPU; it has printed "
            "why to stderr. It needs a GPU of NVIDIA, its driver, and the libraries "
            f"of CUDA and cuDNN ({INSTALL_CUDA}). Or pass device='cpu'."
        )
    return session


def _options(runtime: Any, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait slow down a framework in the same process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _providers(runtime: Any, device: str, tf32: bool) -> list[Any]:
    if device == "cpu":
        return [CPU]
    if CUDA not in runtime.get_available_providers():
        raise RuntimeError(
            "`device` is 'cuda', but this build of ONNX Runtime knows no CUDA. "
            f"Uninstall onnxruntime, then {INSTALL_RUNTIME}."
        )
    _load_cuda_libraries(runtime)
    return [(CUDA, {"use_tf32": str(int(tf32))}), CPU]


@functools.cache
def _load_cuda_libraries(runtime: Any) -> None:
    """Load the libraries of CUDA's own wheels, without the talk on stdout."""
    if hasattr(runtime, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            runtime.preload_dlls()


def _inexact_fusions(content: bytes) -> list[str]:
    """Optimizers to switch off: this one rounds float64 factors to float32."""
    inputs = onnx.load_model_from_string(content).graph.input
    double = onnx.TensorProto.DOUBLE
    if any(value.type.tensor_type.elem_type == double for value in inputs):
        return ["MatMulScaleFusion"]
    return []
