"""Read a file as a model, or say what is the matter with it."""

import enum
import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

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
        UnreadableFileError: If it is no ONNX model, only the beginning of one, or
            damaged.
    """
    require_file(path)
    content = Path(path).read_bytes()
    return parsed(content, repr(str(path))), content


def require_file(path: str | os.PathLike[str]) -> None:
    """Raise FileNotFoundError if there is no file of this name."""
    if Path(path).is_dir():
        raise FileNotFoundError(f"{str(path)!r} is a folder. Name a file in it.")
    if Path(path).exists() and not Path(path).is_file():
        raise FileNotFoundError(f"{str(path)!r} is no regular file. Save it as one.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")


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
        if GRAPH_TAG in _tags(content):
            raise UnreadableFileError(
                Verdict.ALTERED,
                f"{name} is laid out as an ONNX file, but a part of it cannot be read. "
                "Copy or export it again.",
            ) from error
        end = _end_of_fields(content)
        if GRAPH_TAG in _tags(content[:end]):
            raise UnreadableFileError(
                Verdict.ALTERED,
                f"{name} is laid out as an ONNX file up to its byte {end:,}, and ends "
                f"with {len(content) - end:,} others. Copy or export it again.",
            ) from error
        model = onnx.ModelProto()
    if model.ir_version and model.HasField("graph") and model.opset_import:
        return model
    if model.ir_version:
        last = model.ListFields()[-1][0].name
        raise UnreadableFileError(
            Verdict.TRUNCATED,
            f"{name} is the beginning of an ONNX file: it ends after its field "
            f"{last!r}. Copy or download it again.",
        )
    raise UnreadableFileError(
        Verdict.NOT_ONNX, f"{name} is no ONNX model; its first bytes: {content[:8]!r}."
    )


def _missing_bytes(content: bytes) -> int:
    """How many bytes the last field announces beyond the end; 0 if that is no model.

    Protocol buffers: each field is a tag, then a number, or a length and so many bytes
    (protobuf.dev/programming-guides/encoding).
    """
    place = 0
    while place < len(content) and content.startswith(FIRST_TAG):
        tag, place = _varint(content, place)
        if tag not in TAGS:
            return 0
        value, place = _varint(content, place)
        place += value if tag & 7 == LENGTH else 0
    return max(0, place - len(content))


def _tags(content: bytes) -> set[int]:
    """The tags of the fields, if they fill the bytes and are a model's; else none."""
    place, tags = 0, set()
    while place < len(content):
        tag, place = _varint(content, place)
        value, place = _varint(content, place)
        place += value if tag & 7 == LENGTH else 0
        tags.add(tag)
    return tags if place == len(content) and tags <= set(TAGS) else set()


def _end_of_fields(content: bytes) -> int:
    """Where the last whole field of a model ends, of those that follow each other."""
    place = 0
    while place < len(content):
        tag, end = _varint(content, place)
        value, end = _varint(content, end)
        end += value if tag & 7 == LENGTH else 0
        if tag not in TAGS or end > len(content):
            break
        place = end
    return place


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """The number at a place, 7 bits per byte, and the place after it."""
    value = 0
    for index, byte in enumerate(content[place : place + LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place + index + 1
    return value, len(content) + 1
