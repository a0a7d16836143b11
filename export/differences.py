"""Where two models differ, by the names of nodes, attributes and metadata."""

from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf import json_format


def differences(model: onnx.ModelProto, other: onnx.ModelProto) -> list[str]:
    """Return one line per difference, in the order of the file.

    Args:
        model: The model that is looked at.
        other: What it should be.

    Returns:
        Lines such as `graph.node[step_1/gram] is missing`. Empty for equal models.

    Example:
        >>> from keras_muon.export import newton_schulz
        >>> model = newton_schulz((8, 4))
        >>> model.producer_name = "me"
        >>> differences(model, newton_schulz((8, 4)))
        ["producer_name is 'me', should be 'keras_muon'"]
    """
    return list(_differences("", _plain(model), _plain(other)))


def _plain(model: onnx.ModelProto) -> dict[str, Any]:
    return json_format.MessageToDict(model, preserving_proto_field_name=True)


def _differences(path: str, found: Any, wanted: Any) -> Iterator[str]:
    if isinstance(found, list) and isinstance(wanted, list):
        yield from _list_differences(path, found, wanted)
    elif isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            below = key if not path else f"{path}.{key}"
            yield from _entry_differences(below, key, found, wanted)
    elif found != wanted:
        yield f"{path} is {found!r}, should be {wanted!r}"


def _list_differences(path: str, found: list, wanted: list) -> Iterator[str]:
    found_by, wanted_by = _labelled(found), _labelled(wanted)
    for label in [*wanted_by, *(key for key in found_by if key not in wanted_by)]:
        yield from _entry_differences(f"{path}[{label}]", label, found_by, wanted_by)
    common = [label for label in found_by if label in wanted_by]
    if common != [label for label in wanted_by if label in found_by]:
        yield f"{path} has another order"


def _entry_differences(path: str, key: Any, found: dict, wanted: dict) -> Iterator[str]:
    if key not in found:
        yield f"{path} is missing"
    elif key not in wanted:
        yield f"{path} should not be there"
    else:
        yield from _differences(path, found[key], wanted[key])


def _labelled(entries: list) -> dict[Any, Any]:
    """Entries by their name or key; by their place where they have none."""
    labels = [
        entry.get("name", entry.get("key", place)) if isinstance(entry, dict) else place
        for place, entry in enumerate(entries)
    ]
    # Names that are not unique name nothing.
    if len(set(labels)) < len(labels):
        labels = list(range(len(entries)))
    return dict(zip(labels, entries, strict=True))
