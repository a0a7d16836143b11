"""Whether a file is a good graph of this package, and if not, what it is."""

from pathlib import Path
from typing import NamedTuple

import onnx

from keras_muon.export.check_row import Check
from keras_muon.export.checks import SPECIFICATION, check_list
from keras_muon.export.finish import PRODUCER, SPECIFICATION_KEY
from keras_muon.export.reading import UnreadableFileError, Verdict, read_model


class Examination(NamedTuple):
    """What is known about a file.

    Args:
        verdict: What it is.
        reason: One sentence.
        checks: The checks that were made.
    """

    verdict: Verdict
    reason: str
    checks: list[Check]


def examine(path: Path, verify: str = "auto") -> Examination:
    """Tell good files, altered ones, those of others and broken ones apart.

    Args:
        path: The file.
        verify: As in `check_list`.

    Returns:
        The examination.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If ONNX Runtime is asked for by name and not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "note.onnx"
        ...     _ = path.write_text("Dear diary")
        ...     examine(path).verdict.value
        'no ONNX'
    """
    try:
        model, content = read_model(path)
    except UnreadableFileError as error:
        return Examination(error.verdict, str(error), [])
    if not _has_specification(model):
        return _without_specification(model)
    checks = check_list(content, verify)
    failed = [check for check in checks if check.passed is False]
    if not failed:
        return Examination(Verdict.GOOD, "All checks passed.", checks)
    if any(check.name == SPECIFICATION for check in failed):
        reason = "The file is not what its specification gives."
        return Examination(Verdict.ALTERED, reason, checks)
    names = ", ".join(check.name for check in failed)
    return Examination(Verdict.WRONG, f"As exported, but these fail: {names}.", checks)


def _has_specification(model: onnx.ModelProto) -> bool:
    return any(entry.key == SPECIFICATION_KEY for entry in model.metadata_props)


def _without_specification(model: onnx.ModelProto) -> Examination:
    missing = f"Its metadata has no {SPECIFICATION_KEY!r}"
    if model.producer_name == PRODUCER:
        reason = f"{missing}, though {PRODUCER} made it: cut off or taken out."
        return Examination(Verdict.ALTERED, reason, [])
    producer = model.producer_name or "someone who left no name"
    reason = f"{missing}, and {producer} made it. There is nothing to compare with."
    return Examination(Verdict.FOREIGN, reason, [])
