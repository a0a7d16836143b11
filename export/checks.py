"""The checks of a finished file: the standard's, its specification's, and results."""

from typing import Any

import onnx

from keras_muon.export.alias_safety import check_alias_safety
from keras_muon.export.check_row import Check, guarded
from keras_muon.export.differences import differences
from keras_muon.export.extras import require_onnxruntime
from keras_muon.export.finish import PRODUCER, seal, serialized
from keras_muon.export.result_checks import result_checks
from keras_muon.export.specification import rebuild, specification_of
from keras_muon.export.step_ports import ADAMW_STATE, MUON_STATE
from keras_muon.version import __version__

STATES = {"muon_step": MUON_STATE, "adamw_step": ADAMW_STATE}
SHOWN_DIFFERENCES = 3

# Name of the row that compares a file with what its specification gives.
SPECIFICATION = "specification"


def check_list(content: bytes, verify: str = "auto") -> list[Check]:
    """Check the bytes of a file that this package made.

    Args:
        content: The bytes.
        verify: Who computes: `"reference"` (the standard's own evaluator),
            `"onnxruntime"`, `"none"`, or `"auto"` for both where ONNX Runtime is
            installed and the matrices are not too large.

    Returns:
        The checks in order. A check that raises has failed, with its message.

    Raises:
        ImportError: If ONNX Runtime is asked for by name and not installed.

    Example:
        >>> from keras_muon.export import newton_schulz, serialized
        >>> rows = check_list(serialized(newton_schulz((8, 4))), "reference")
        >>> [row.name for row in rows if row.passed]
        ['standard', 'shapes', 'specification', 'reference evaluator']
    """
    if verify == "onnxruntime":
        require_onnxruntime()
    model = onnx.load_model_from_string(content)
    rows = [
        guarded("standard", lambda: _standard(model)),
        guarded("shapes", lambda: _shapes(model)),
        guarded(SPECIFICATION, lambda: _specification(model, content)),
    ]
    specification = _described(model)
    if specification is None:
        return rows
    kind = specification["kind"]
    if kind in STATES:
        rows.append(guarded("state in place", lambda: _in_place(model, kind)))
    return rows + result_checks(model, specification, verify)


def _standard(model: onnx.ModelProto) -> Check:
    onnx.checker.check_model(model, full_check=True)
    opset = model.opset_import[0].version
    return Check("standard", True, f"opset {opset}, IR version {model.ir_version}")


def _shapes(model: onnx.ModelProto) -> Check:
    inferred = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True
    )
    count = len(inferred.graph.value_info) + len(inferred.graph.output)
    return Check("shapes", True, f"inferred strictly for {count} values")


def _specification(model: onnx.ModelProto, content: bytes) -> Check:
    rebuilt = rebuild(specification_of(model))
    if serialized(rebuilt) == content:
        return Check(SPECIFICATION, True, f"gives the same {len(content):,} bytes")
    found = differences(model, rebuilt)
    version = model.producer_version
    if version != __version__ and model.producer_name == PRODUCER:
        rebuilt.producer_version = version
        seal(rebuilt)
        if serialized(rebuilt) == content:
            return Check(
                SPECIFICATION,
                True,
                f"gives the same graph, made by version {version}; this is "
                f"{__version__}",
            )
        # The fewer: an altered version number, or what was altered in another's file.
        found = min(found, differences(model, rebuilt), key=len)
    found = found or ["the encoding of the file"]
    shown = "; ".join(found[:SHOWN_DIFFERENCES])
    more = len(found) - SHOWN_DIFFERENCES
    return Check(SPECIFICATION, False, f"{shown}{f'; {more} more' if more > 0 else ''}")


def _described(model: onnx.ModelProto) -> dict[str, Any] | None:
    """The specification of a model, if a graph can be made of it.

    What is wrong with a damaged one, whatever that is, the row before has told.
    """
    try:
        specification = specification_of(model)
        rebuild(specification)
    except Exception:
        return None
    return specification


def _in_place(model: onnx.ModelProto, kind: str) -> Check:
    check_alias_safety(model, STATES[kind])
    return Check("state in place", True, "all reads come before their writes")
