"""One row of a check list."""

from collections.abc import Callable
from typing import NamedTuple


class Check(NamedTuple):
    """One row of a check list.

    Args:
        name: What is checked.
        passed: Whether it holds; None if it was left out.
        detail: What was found, or why it was left out.
        error: Measured relative error, or None.
        bound: Largest error that passes, or None.
    """

    name: str
    passed: bool | None
    detail: str
    error: float | None = None
    bound: float | None = None


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """The row of a check; whatever a damaged file makes it raise is its result."""
    try:
        return check()
    except Exception as error:
        return Check(name, False, one_line(error))


def one_line(error: BaseException) -> str:
    """Return the message of an exception without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__
