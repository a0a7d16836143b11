"""Newton-Schulz and the optimizer step as ONNX graphs.

Names are loaded when they are first used (PEP 562): importing this package needs
neither onnx nor onnxruntime, and no Keras.
"""

import importlib
from typing import TYPE_CHECKING, Any

from keras_muon.export.extras import require_onnx

if TYPE_CHECKING:
    from keras_muon.export.adamw_step_graph import adamw_step as adamw_step
    from keras_muon.export.alias_safety import check_alias_safety as check_alias_safety
    from keras_muon.export.finish import serialized as serialized
    from keras_muon.export.muon_step_graph import muon_step as muon_step
    from keras_muon.export.newton_schulz_graph import newton_schulz as newton_schulz
    from keras_muon.export.optimizer_export import optimizer_step as optimizer_step
    from keras_muon.export.optimizer_export import variable_values as variable_values
    from keras_muon.export.running import run as run
    from keras_muon.export.specification import rebuild as rebuild
    from keras_muon.export.specification import specification_of as specification_of
    from keras_muon.export.step_runner import StepRunner as StepRunner

# The module of each public name.
_HOMES = {
    "StepRunner": "step_runner",
    "adamw_step": "adamw_step_graph",
    "check_alias_safety": "alias_safety",
    "muon_step": "muon_step_graph",
    "newton_schulz": "newton_schulz_graph",
    "optimizer_step": "optimizer_export",
    "rebuild": "specification",
    "run": "running",
    "serialized": "finish",
    "specification_of": "specification",
    "variable_values": "optimizer_export",
}

__all__ = [
    "StepRunner",
    "adamw_step",
    "check_alias_safety",
    "muon_step",
    "newton_schulz",
    "optimizer_step",
    "rebuild",
    "run",
    "serialized",
    "specification_of",
    "variable_values",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_onnx()
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
