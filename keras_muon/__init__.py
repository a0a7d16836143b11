"""Muon for Keras 3, on TensorFlow, JAX and PyTorch.

Names are loaded when they are first used (PEP 562), so that `keras_muon.export` and its
command line start without Keras.
"""

import importlib
from typing import TYPE_CHECKING, Any

from keras_muon.registration import register_with_keras
from keras_muon.version import __version__ as __version__

if TYPE_CHECKING:
    from keras_muon.declared_views import register_views as register_views
    from keras_muon.matrix_view import MatrixView as MatrixView
    from keras_muon.minimax import minimax_schedule as minimax_schedule
    from keras_muon.muon import Muon as Muon
    from keras_muon.orthogonalizing import orthogonalize as orthogonalize
    from keras_muon.routing import Route as Route
    from keras_muon.schedules import SCHEDULES as SCHEDULES
    from keras_muon.schedules import Schedule as Schedule

# The module of each public name.
_HOMES = {
    "SCHEDULES": "schedules",
    "MatrixView": "matrix_view",
    "Muon": "muon",
    "Route": "routing",
    "Schedule": "schedules",
    "minimax_schedule": "minimax",
    "orthogonalize": "orthogonalizing",
    "register_views": "declared_views",
}

# Names whose modules import Keras. It must be there before: at the end of its own
# import Keras loads Muon, which needs these modules whole.
_ON_KERAS = {"Muon", "orthogonalize", "register_views"}

__all__ = [
    "SCHEDULES",
    "MatrixView",
    "Muon",
    "Route",
    "Schedule",
    "__version__",
    "minimax_schedule",
    "orthogonalize",
    "register_views",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _ON_KERAS:
        importlib.import_module("keras")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_keras()
