"""What the text of a command line means: shapes, extents, schedules, numbers."""

import math
import re

from keras_muon.messages import unknown_name
from keras_muon.schedules import SCHEDULES, Schedule

# How a tensor without axes is written.
SCALAR = "scalar"


def parsed_shape(text: str) -> tuple[int | str, ...]:
    """Return extents from text.

    Args:
        text: `768x3072`, `768,3072`, names of open extents as in `mxn` or `max,n`, or
            `scalar`.

    Returns:
        Numbers and names.

    Raises:
        ValueError: If a part is neither.

    Example:
        >>> parsed_shape("768x3072"), parsed_shape("m,n"), parsed_shape("scalar")
        ((768, 3072), ('m', 'n'), ())
    """
    if text == SCALAR:
        return ()
    return tuple(
        _extent(part, text) for part in re.split("," if "," in text else "x", text)
    )


def _extent(part: str, text: str) -> int | str:
    extent = parsed_extent(part)
    if isinstance(extent, str) and not extent.isidentifier():
        raise ValueError(
            f"`shape`: {part!r} in {text!r} is neither a whole number nor a name. "
            "Write 768x3072, or m,n for open extents."
        )
    return extent


def parsed_extent(text: str) -> int | str:
    """Return a whole number, or the text itself as the name of an open extent."""
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else text


def parsed_schedule(text: str) -> str | Schedule:
    """Return the name of a schedule, or one of its own from triples.

    Args:
        text: A name in `SCHEDULES`, or `a,b,c;a,b,c`. The last triple repeats if more
            steps are asked for.

    Raises:
        ValueError: If it is neither, or no step may use the triples.

    Example:
        >>> parsed_schedule("1.5,-0.5,0").coefficients
        ((1.5, -0.5, 0.0),)
    """
    if text in SCHEDULES:
        return text
    if not re.search(r"[,;]", text):
        raise unknown_name(
            "schedule", text, SCHEDULES, "For your own, write 'a,b,c;a,b,c'."
        )
    try:
        rows = [row.split(",") for row in text.split(";")]
        triples = tuple((float(a), float(b), float(c)) for a, b, c in rows)
        if not all(math.isfinite(x) for triple in triples for x in triple):
            raise ValueError
    except ValueError:
        raise ValueError(
            "`schedule` must be a name or triples of finite numbers, 'a,b,c;a,b,c'; "
            f"received {text!r}."
        ) from None
    return Schedule(triples, tail="repeat")
