"""Files that appear whole or not at all, and replace others only when told to."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from keras_muon.export.file_errors import writing

# The layout of the ONNX backend tests.
TEST_DATA = "test_data_set_"
TEST_MODEL = "model.onnx"


def check_target(path: Path, *, force: bool) -> None:
    """Refuse a file that cannot be written, before anything is computed.

    Args:
        path: Where to.
        force: Whether an existing file may be replaced.

    Raises:
        FileExistsError: If it exists and `force` is False.
        FileNotFoundError: If its folder does not exist.
        OSError: If its name is too long, or its folder may not be searched.
        ValueError: If it is a folder, or a device.
    """
    with writing(repr(str(path))):
        _check_target(path, force)


def _check_target(path: Path, force: bool) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r}.")
    if not Path(os.path.realpath(path)).parent.is_dir():
        raise FileNotFoundError(
            f"{str(path)!r} is a link to {os.path.realpath(path)!r}, whose folder does "
            "not exist."
        )
    if path.exists() and not path.is_file():
        raise ValueError(
            f"{str(path)!r} is no regular file. Name a file; '-' is standard output."
        )
    if path.exists() and not force:
        raise FileExistsError(
            f"{str(path)!r} exists. Choose another name, or replace it by --force."
        )


def check_test_folder(folder: Path, *, force: bool) -> None:
    """Refuse a folder for test data that holds anything else.

    Args:
        folder: Where to.
        force: Whether existing test data may be replaced.

    Raises:
        FileExistsError: If it exists, and `force` is False or it holds other files.
    """
    with writing(repr(str(folder))):
        _check_test_folder(folder, force)


def _check_test_folder(folder: Path, force: bool) -> None:
    if not folder.exists():
        return
    others = [str(folder)] if not folder.is_dir() else _others(folder)
    if others:
        raise FileExistsError(
            f"{str(folder)!r} holds more than test data ({others[0]!r}), so it is not "
            "replaced. Choose another name for the model."
        )
    if not force:
        raise FileExistsError(
            f"{str(folder)!r} exists. Choose another name, or replace it by --force."
        )


def _others(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.iterdir())
    return [n for n in names if n != TEST_MODEL and not n.startswith(TEST_DATA)]


@contextlib.contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Give a new folder beside a target, which is gone afterwards, come what may.

    Args:
        path: The target, on whose file system the folder is made.

    Raises:
        OSError: If nothing can be written there.
    """
    with (
        writing(repr(str(path))),
        tempfile.TemporaryDirectory(prefix=".keras-muon-", dir=path.parent) as room,
    ):
        yield Path(room)


def place(file: Path, path: Path, *, force: bool) -> None:
    """Rename a staged file to its target, through a link if the target is one.

    A file that is replaced leaves its permissions to the new one.

    Args:
        file: The staged file.
        path: The target.
        force: Whether an existing file may be replaced.

    Raises:
        FileExistsError: If the target has come to exist and `force` is False.
    """
    check_target(path, force=force)
    if path.exists():
        file.chmod(stat.S_IMODE(path.stat().st_mode))
    os.replace(file, os.path.realpath(path))


def place_test_folder(folder: Path, path: Path, *, force: bool) -> None:
    """Rename a staged folder of test data to its target.

    Args:
        folder: The staged folder. Test data that it replaces ends up beside it.
        path: The target.
        force: Whether existing test data may be replaced.

    Raises:
        FileExistsError: If the target may not be replaced.
    """
    check_test_folder(path, force=force)
    if path.exists():
        path.rename(folder.with_name("replaced"))
    folder.rename(path)
