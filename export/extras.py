"""onnx and onnxruntime, imported when they are needed, or the way to get them."""

import functools
import importlib
import importlib.metadata
import warnings
from typing import Any

INSTALL_ONNX = 'pip install "keras-muon[onnx]"'
INSTALL_RUNTIME = (
    'pip install "keras-muon[onnxruntime]", or for NVIDIA GPUs '
    'pip install "keras-muon[onnxruntime-gpu]"'
)


def require_onnx() -> Any:
    """Return the module onnx.

    Raises:
        ImportError: If it is not installed, with the command that installs it.
    """
    return _require("onnx", "ONNX graphs need", INSTALL_ONNX)


def require_onnxruntime() -> Any:
    """Return the module onnxruntime.

    Raises:
        ImportError: If it is not installed, with the commands that install it.

    Warns:
        UserWarning: If two distributions of it are installed over each other.
    """
    runtime = _require("onnxruntime", "Running a graph needs", INSTALL_RUNTIME)
    _warn_of_two_runtimes()
    return runtime


def _require(name: str, purpose: str, command: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(
            f"{purpose} {name}, which is not installed. Install it: {command}."
        ) from None


@functools.cache
def _warn_of_two_runtimes() -> None:
    """Both write the same folder, and CUDA is gone (onnxruntime issue 26996)."""
    if _is_installed("onnxruntime") and _is_installed("onnxruntime-gpu"):
        warnings.warn(
            "Both onnxruntime and onnxruntime-gpu are installed. They overwrite each "
            "other's files, and CUDA may be gone. Uninstall both, then install one: "
            f"{INSTALL_RUNTIME}.",
            UserWarning,
            stacklevel=4,
        )


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
