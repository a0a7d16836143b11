"""A graph's specification: plain values in the file, from which it can be rebuilt."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import onnx

from keras_muon.export.adamw_step_graph import adamw_step
from keras_muon.export.finish import SPECIFICATION_KEY
from keras_muon.export.muon_step_graph import muon_step
from keras_muon.export.newton_schulz_graph import newton_schulz
from keras_muon.messages import unknown_name

BUILDERS: dict[str, Callable[..., onnx.ModelProto]] = {
    "adamw_step": adamw_step,
    "muon_step": muon_step,
    "newton_schulz": newton_schulz,
}


def specification_of(model: onnx.ModelProto) -> dict[str, Any]:
    """Return the specification that a graph of this package carries.

    Args:
        model: The model.

    Returns:
        Its kind, and the arguments that it was made with.

    Raises:
        ValueError: If the model carries none, or what it carries is damaged.

    Example:
        >>> specification_of(newton_schulz((8, 4)))["shape"]
        [8, 4]
    """
    for entry in model.metadata_props:
        if entry.key == SPECIFICATION_KEY:
            return _parsed(entry.value)
    raise ValueError(
        f"The model has no {SPECIFICATION_KEY!r} among its metadata, so it was not "
        "made by keras_muon.export."
    )


def rebuild(specification: Mapping[str, Any]) -> onnx.ModelProto:
    """Return the model that a specification describes, byte for byte.

    Args:
        specification: What `specification_of` returned.

    Returns:
        The model.

    Raises:
        ValueError: If the kind is unknown, or an argument out of range.

    Example:
        >>> model = newton_schulz((8, 4))
        >>> rebuild(specification_of(model)) == model
        True
    """
    arguments = dict(specification)
    kind = arguments.pop("kind", None)
    if kind not in BUILDERS:
        raise unknown_name("kind", kind, BUILDERS)
    if kind != "adamw_step":
        # Specifications without it are older than plans.
        arguments.setdefault("method", "standard")
    return BUILDERS[kind](**arguments)


def _parsed(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("kind"), str):
        raise ValueError(
            f"The model's {SPECIFICATION_KEY!r} is no specification: {text[:80]!r}."
        )
    return values
