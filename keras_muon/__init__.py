"""Muon for Keras 3, on TensorFlow, JAX and PyTorch."""

from keras_muon.declared_views import register_views as register_views
from keras_muon.keras_ops import orthogonalize as orthogonalize
from keras_muon.matrix_view import MatrixView as MatrixView
from keras_muon.minimax import minimax_schedule as minimax_schedule
from keras_muon.muon import Muon as Muon
from keras_muon.routing import Route as Route
from keras_muon.schedules import SCHEDULES as SCHEDULES
from keras_muon.schedules import Schedule as Schedule
from keras_muon.version import __version__ as __version__

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
