"""Types for argparse that refuse, before anything is measured, what fails afterwards.

    parser.add_argument("--json", type=file_to_write, help="where to write all numbers")

argparse puts the name of the argument before what they say, and leaves with code 2. It
asks them about a default too, if that is a string.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

# Of what matplotlib writes, what people open.
PLOTS = (".png", ".pdf", ".svg")


def file_to_write(text: str) -> Path:
    """Return the path of a file that can be written.

    Args:
        text: What stands on the command line.

    Raises:
        argparse.ArgumentTypeError: If its folder is not there, if it is a folder
            itself, or if it may not be written.

    Example:
        >>> file_to_write("no/folder/times.json")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: cannot write 'no/folder/times.json': there is ...
    """
    if os.path.isdir(text or "."):
        raise _refusal(text, "it is a folder. Name a file in it.")
    return _writable(text)


def plot_to_write(text: str) -> Path:
    """Return the path of a plot that can be written.

    Args:
        text: What stands on the command line.

    Raises:
        argparse.ArgumentTypeError: As `file_to_write`, and if the suffix is not one
            of `PLOTS`.

    Example:
        >>> plot_to_write("times.txt")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: cannot write 'times.txt': the name of a plot ...
    """
    path = file_to_write(text)
    if path.suffix.lower() not in PLOTS:
        known = ", ".join(PLOTS)
        raise _refusal(text, f"the name of a plot must end with one of {known}.")
    return path


def folder_to_write(text: str) -> Path:
    """Return the path of a folder that can be written to, or made in one that is there.

    Args:
        text: What stands on the command line.

    Raises:
        argparse.ArgumentTypeError: If the folder that it lies in is not there, if it is
            a file, or if it may not be written to.

    Example:
        >>> folder_to_write("no/folder")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: cannot write 'no/folder': there is no folder ...
    """
    if os.path.exists(text) and not os.path.isdir(text):
        raise _refusal(text, "it is a file. Name a folder.")
    return _writable(text)


def whole_number(least: int = 1, multiple: int = 1) -> Callable[[str], int]:
    """Return the type of whole numbers from `least` on.

    Args:
        least: The smallest that is allowed.
        multiple: Only multiples of this are allowed.

    Returns:
        A function that raises `argparse.ArgumentTypeError` for all else.

    Example:
        >>> whole_number(multiple=4)("8")
        8
        >>> whole_number(multiple=4)("9")
        Traceback (most recent call last):
        argparse.ArgumentTypeError: must be a multiple of 4 and at least 1; got '9'.
    """
    kind = f"a multiple of {multiple} and" if multiple > 1 else "a whole number,"

    def number(text: str) -> int:
        try:
            value = int(text)
            if value < least or value % multiple:
                raise ValueError
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"must be {kind} at least {least}; got {text!r}."
            ) from None
        return value

    return number


def _writable(text: str) -> Path:
    """Refuse what cannot be made or replaced, without making it."""
    path = place = Path(text)
    folder = path.absolute().parent
    if not folder.is_dir():
        reason = f"there is no folder {str(folder)!r}. Make it, or name another."
        raise _refusal(text, reason)
    try:
        path.stat()
    except FileNotFoundError:
        place = folder
    except OSError as error:  # for example a name that is too long
        raise _refusal(text, f"{error.strerror}. Name another.") from None
    if not os.access(place, os.W_OK):
        reason = f"{str(place)!r} is read-only. Name another."
        raise _refusal(text, reason)
    return path


def _refusal(text: str, reason: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"cannot write {text!r}: {reason}")
