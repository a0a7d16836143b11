"""Errors that say what was received, what is allowed, and the way out."""

import difflib
import inspect
import math
import operator
import os
from collections.abc import Iterable


def require_choice(
    argument: str, received: object, known: Iterable[str], way_out: str = ""
) -> str:
    """Return `received` if it is one of the known names, or refuse it.

    Args:
        argument: Name of the argument, as the user wrote it.
        received: The value that was passed.
        known: The names that are allowed.
        way_out: A sentence that says what to do if none of them fits.

    Returns:
        The name.

    Raises:
        ValueError: If it is another name, or no name.

    Example:
        >>> require_choice("schedule", "you", ["jordan", "you"])
        'you'
    """
    known = list(known)
    # An array would be compared entry by entry.
    if not isinstance(received, str) or received not in known:
        raise unknown_name(argument, received, known, way_out)
    return received


def unknown_name(
    argument: str,
    received: object,
    known: Iterable[str],
    way_out: str = "",
    *,
    likeness: float = 0.5,
) -> ValueError:
    """Return the error for a name that is not in a table, with close matches.

    Args:
        argument: Name of the argument, as the user wrote it, or a description that
            marks what is code itself.
        received: The value that was passed.
        known: The names that are allowed.
        way_out: A sentence that says what to do if none of them fits.
        likeness: How much of a name must agree for it to be suggested, in [0, 1].

    Returns:
        A `ValueError` to raise.

    Example:
        >>> print(unknown_name("schedule", "yuo", ["jordan", "you"]))
        Unknown `schedule`: 'yuo'; did you mean 'you'? Known: 'jordan', 'you'.
    """
    known = list(known)
    lower = {name.lower(): name for name in known}
    text = str(received).lower()
    close = difflib.get_close_matches(text, lower, n=1, cutoff=likeness)
    guess = f"; did you mean {lower[close[0]]!r}?" if close else "."
    names = ", ".join(repr(name) for name in known)
    named = argument if "`" in argument or " " in argument else f"`{argument}`"
    text = f"Unknown {named}: {received!r}{guess} Known: {names}."
    return ValueError(f"{text} {way_out}".rstrip())


def require_number(
    argument: str,
    received: object,
    *,
    minimum: float = 0.0,
    below: float = math.inf,
    open_minimum: bool = False,
    way_out: str = "",
) -> float:
    """Return `received` as a float, or refuse it by name.

    Args:
        argument: Name of the argument, as the user wrote it.
        received: The value that was passed.
        minimum: Smallest value that is allowed.
        below: The value must be smaller than this.
        open_minimum: Refuse `minimum` itself.
        way_out: A sentence that says what to do instead.

    Returns:
        The value as a Python float.

    Raises:
        TypeError: If it is not a real number.
        ValueError: If it lies outside the range, or is not finite.
    """
    try:
        if isinstance(received, (bool, str)) or getattr(received, "shape", ()) != ():
            raise TypeError
        number = float(received)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(
            f"`{argument}` must be a number; received {received!r} of type "
            f"{type(received).__name__}. {way_out}".rstrip()
        ) from None
    too_small = number <= minimum if open_minimum else number < minimum
    if too_small or not number < below or not math.isfinite(number):
        left = "(" if open_minimum else "["
        raise ValueError(
            f"`{argument}` must lie in {left}{minimum:g}, {below:g}); "
            f"received {received!r}. {way_out}".rstrip()
        )
    return number


def require_count(argument: str, received: object, *, way_out: str = "") -> int:
    """Return `received` as an integer of at least 1, or refuse it by name.

    Args:
        argument: Name of the argument, as the user wrote it.
        received: The value that was passed.
        way_out: A sentence that says what to do instead.

    Returns:
        The value as a Python int.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below 1.
    """
    try:
        if isinstance(received, bool):
            raise TypeError
        count = operator.index(received)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"`{argument}` must be a whole number of at least 1; received "
            f"{received!r}. {way_out}".rstrip()
        ) from None
    if count < 1:
        raise ValueError(
            f"`{argument}` must be at least 1; received {count}. {way_out}".rstrip()
        )
    return count


def require_flag(argument: str, received: object) -> bool:
    """Return `received` if it is True or False, or refuse it by name.

    Args:
        argument: Name of the argument, as the user wrote it.
        received: The value that was passed.

    Returns:
        The flag.

    Raises:
        TypeError: If it is anything but True or False.
    """
    if received is not True and received is not False:
        raise TypeError(f"`{argument}` must be True or False; received {received!r}.")
    return received


def level_of_the_user() -> int:
    """Return the `stacklevel` that makes a warning point at the user's own line.

    Returns:
        The number of calls between the caller and the nearest function that belongs
        neither to Keras nor to this package.
    """
    frame, level = inspect.currentframe(), 0
    while frame is not None and _is_internal(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    return max(level, 1)


def _is_internal(filename: str) -> bool:
    parts = os.path.normpath(filename).split(os.sep)[:-1]
    return bool({"keras", "keras_muon", "tensorflow"} & set(parts))
