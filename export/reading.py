"""Read a file as a model, or say what is the matter with it."""

import enum
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from keras_muon.export.file_errors import reading

# How protocol buffers write a field: a tag of its number and wire type comes first.
# ModelProto has only numbers (wire type 0) and what has a length.
LENGTH = 2
FIELDS = onnx.ModelProto.DESCRIPTOR.fields_by_name
TAGS = frozenset(
    field.number << 3 | (0 if field.cpp_type == field.CPPTYPE_INT64 else LENGTH)
    for field in FIELDS.values()
)
# Fields are written in the order of their numbers, and every model has the first.
FIRST_TAG = bytes([FIELDS["ir_version"].number << 3])
LONGEST_VARINT = 10
GRAPH_TAG = FIELDS["graph"].number << 3 | LENGTH


class Verdict(enum.Enum):
    """What a file is."""

    GOOD = "good"
    NOT_ONNX = "no ONNX"
    TRUNCATED = "truncated"
    FOREIGN = "not of keras_muon"
    ALTERED = "altered"
    WRONG = "wrong results"


class UnreadableFileError(ValueError):
    """A file that holds no model.

    Args:
        verdict: What it is instead.
        message: The reason, for the user.
    """

    def __init__(self, verdict: Verdict, message: str):
        super().__init__(message)
        self.verdict = verdict


def read_model(path: str | os.PathLike[str]) -> tuple[onnx.ModelProto, bytes]:
    """Return the model of a file, and the file's bytes.

    Args:
        path: Of an ONNX file.

    Returns:
        The model and the bytes.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        UnreadableFileError: If it is no ONNX model, only the beginning of one, or
            damaged.
    """
    require_file(path)
    with reading(repr(str(path))):
        content = Path(path).read_bytes()
    return parsed(content, repr(str(path))), content


def require_file(path: str | os.PathLike[str]) -> None:
    """Raise FileNotFoundError if there is no file of this name."""
    with reading(repr(str(path))):
        _require_file(path)


def _require_file(path: str | os.PathLike[str]) -> None:
    if Path(path).is_dir():
        raise FileNotFoundError(f"{str(path)!r} is a folder. Name a file in it.")
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{str(path)!r} is no regular file. Save it as one.")


def parsed(content: bytes, name: str) -> onnx.ModelProto:
    """Return the model that bytes hold.

    Args:
        content: The bytes.
        name: What to call them in messages.

    Raises:
        UnreadableFileError: If they hold none.
    """
    if not content:
        raise UnreadableFileError(Verdict.NOT_ONNX, f"{name} is empty.")
    missing = _missing_bytes(content)
    if missing:
        raise UnreadableFileError(
            Verdict.TRUNCATED,
            f"{name} is the beginning of an ONNX file: it has {len(content):,} bytes "
            f"and announces at least {missing:,} more. Copy or download it again.",
        )
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        whole = [(tag, end) for tag, end in _fields(content) if end <= len(content)]
        if any(tag == GRAPH_TAG for tag, _ in whole):
            raise _altered(content, whole[-1][1], name) from error
        model = onnx.ModelProto()
    if model.ir_version and model.HasField("graph") and model.opset_import:
        return model
    # Messages of another kind may begin as a model does, and go on otherwise.
    if model.ir_version and any(end == len(content) for _, end in _fields(content)):
        last = model.ListFields()[-1][0].name
        raise UnreadableFileError(
            Verdict.TRUNCATED,
            f"{name} is the beginning of an ONNX file: it ends after its field "
            f"{last!r}. Copy or download it again.",
        )
    raise UnreadableFileError(
        Verdict.NOT_ONNX, f"{name} is no ONNX model; its first bytes: {content[:8]!r}."
    )


def _altered(content: bytes, end: int, name: str) -> UnreadableFileError:
    """What to raise for a model whose fields end there, and which no parser reads."""
    others = len(content) - end
    laid_out = "laid out as an ONNX file"
    found = f"{laid_out}, but a part of it cannot be read"
    if others:
        found = f"{laid_out} up to its byte {end:,}, and ends with {others:,} others"
    message = f"{name} is {found}. Copy or export it again."
    return UnreadableFileError(Verdict.ALTERED, message)


def _missing_bytes(content: bytes) -> int:
    """How many bytes the last field announces beyond the end; 0 if that is no model."""
    ends = [end for _, end in _fields(content)]
    begins = content.startswith(FIRST_TAG)
    return max(0, ends[-1] - len(content)) if begins and ends else 0


def _fields(content: bytes) -> Iterator[tuple[int, int]]:
    """The tags of a model's fields, and where they end, up to one that it cannot have.

    Protocol buffers: each field is a tag, then a number, or a length and so many bytes
    (protobuf.dev/programming-guides/encoding). The last may end beyond the bytes.
    """
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        if tag not in TAGS:
            return
        value, place = _varint(content, place)
        place += value if tag & 7 == LENGTH else 0
        yield tag, place


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """The number at a place, 7 bits per byte, and the place after it."""
    value = 0
    for index, byte in enumerate(content[place : place + LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place + index + 1
    return value, len(content) + 1
