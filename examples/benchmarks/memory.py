"""What one optimizer step allocates beyond the state, the weights and the gradients.

For PyTorch on a CPU it is read from the kernel: VmRSS before a step, and after it the
largest VmRSS since then (VmHWM, which "5" in /proc/self/clear_refs resets). For that,
malloc must give what is freed back at once, see `ENVIRONMENT`, and two steps must have
been taken, so that what a library keeps for good (compiled code, packed buffers) is
there before. What is so kept is not counted. The kernel counts pages in batches: below
about a megabyte the result means nothing.

TensorFlow's allocator keeps what a step frees, so that VmHWM does not see it again, but
counts what is in use itself, on CPUs as on CUDA. It is asked; only if it does not know
(without oneDNN), VmHWM is read. On CUDA PyTorch's allocator tells its peak. JAX needs
none of this: XLA plans the memory of a compiled step, see
`carriers.JaxStep.temporary_bytes`.
"""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

# With a threshold of its own, malloc takes every larger block from the kernel and gives
# it back when it is freed.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}

KIB = 1024
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def temporary_bytes(step: Callable[[], None], backend: str, device: str) -> int | None:
    """Return how far memory rises in a step; None where nothing can tell.

    Args:
        step: One whole step.
        backend: `"tensorflow"` or `"torch"`.
        device: `"cpu"` or `"cuda"`.
    """
    for _ in range(2):
        step()
    gc.collect()
    if backend == "tensorflow":
        return _counted_by_tensorflow(step, "CPU:0" if device == "cpu" else "GPU:0")
    return resident_bytes(step) if device == "cpu" else _counted_by_torch(step)


def resident_bytes(call: Callable[[], object]) -> int | None:
    """Return how far the resident set rises in a call; None where no kernel tells."""
    if not (STATUS.exists() and CLEAR.exists()):
        return None
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5", encoding="ascii")
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return KIB * int(line.split()[1])


def _counted_by_torch(step: Callable[[], None]) -> int:
    import torch

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def _counted_by_tensorflow(step: Callable[[], None], device: str) -> int | None:
    from tensorflow.config import experimental as counters

    try:
        counters.reset_memory_stats(device)
    except ValueError:  # this allocator does not count
        return resident_bytes(step) if device == "CPU:0" else None
    before = counters.get_memory_info(device)["current"]
    step()
    return counters.get_memory_info(device)["peak"] - before
