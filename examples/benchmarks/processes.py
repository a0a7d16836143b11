"""Each framework in a process of its own, so that none disturbs another."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

FOLDER = Path(__file__).parent

# JAX computes in float64 only if told so, and no framework may round the factors of
# float32 products to TF32.
EXACT = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    "NVIDIA_TF32_OVERRIDE": "0",
}
# None may take a whole GPU, and TensorFlow need not greet.
ENVIRONMENT = {
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}


def missing(modules: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the names whose module is not installed, and that module.

    Args:
        modules: The module that each name needs.
        names: Names to look at.
    """
    return {
        name: modules[name]
        for name in names
        if importlib.util.find_spec(modules[name]) is None
    }


def environment(device: str = "cpu", exact: bool = True) -> dict[str, str]:
    """Return the environment of a worker.

    Args:
        device: `"cpu"` hides GPUs from every framework.
        exact: Whether products are as exact as their dtype. If False, each framework
            multiplies as it does for its users.
    """
    precision = EXACT if exact else {}
    hidden = WITHOUT_GPU if device == "cpu" else {}
    # A worker's own folder must be importable: it holds the files beside it.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    return kept | ENVIRONMENT | precision | hidden


def run_worker(
    script: str,
    *arguments: object,
    device: str = "cpu",
    exact: bool = True,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Run a script of this folder, and raise what it says if it fails.

    Args:
        script: Its name.
        *arguments: What it gets.
        device: `"cpu"` hides GPUs from it.
        exact: See `environment`.
        extra: More for its environment.
    """
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    result = subprocess.run(
        command,
        env=environment(device, exact) | dict(extra or {}),
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise RuntimeError(f"{script} {arguments[0]} failed:\n{result.stderr[-3000:]}")
