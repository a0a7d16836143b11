"""The operating system's errors, with what was read or written, and the way out."""

import contextlib
import errno
from collections.abc import Iterator, Mapping

ANOTHER_FILE = "Name a file that exists and that you may read."
# Where nothing is named here, the right to write is missing.
WAYS_OUT_OF_WRITING = {
    errno.ENOSPC: "Free some space, or choose another disk.",
    errno.EDQUOT: "Free some space, or choose another disk.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}
ANOTHER_PLACE = "Choose another place, or get the right to write there."


def reading(name: str) -> contextlib.AbstractContextManager[None]:
    """Say in the operating system's errors what was read, and what to do.

    Args:
        name: What is read, as it stands in the message.

    Returns:
        A context that raises an OSError again, as one of the same class. Those that
        have words of their own stay as they are.

    Example:
        >>> with reading("'a.onnx'"):
        ...     raise OSError(errno.ENAMETOOLONG, "File name too long")
        Traceback (most recent call last):
        OSError: Cannot read 'a.onnx': File name too long. Name a file that exists ...
    """
    return _in_words(f"Cannot read {name}", {}, ANOTHER_FILE)


def writing(name: str) -> contextlib.AbstractContextManager[None]:
    """Say in the operating system's errors what was written, and what to do.

    Args:
        name: What is written, as it stands in the message.

    Returns:
        A context, see `reading`.

    Example:
        >>> with writing("'a.onnx'"):
        ...     raise OSError(errno.ENAMETOOLONG, "File name too long")
        Traceback (most recent call last):
        OSError: Cannot write 'a.onnx': File name too long. Choose a shorter name.
    """
    return _in_words(f"Cannot write {name}", WAYS_OUT_OF_WRITING, ANOTHER_PLACE)


@contextlib.contextmanager
def _in_words(
    failure: str, ways_out: Mapping[int, str], otherwise: str
) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        way_out = ways_out.get(error.errno, otherwise)
        raise type(error)(f"{failure}: {error.strerror}. {way_out}") from error
