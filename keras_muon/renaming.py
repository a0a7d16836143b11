"""Which saved name is whose, where loading or rebuilding a model renamed its variables.

Loading drops the outer names of paths, and automatic names (`dense`, `dense_1`) count
anew in every process: there `dense_1` may be another layer than where it was saved.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

# Name and shape of a variable.
Named = tuple[str, tuple[int, ...]]


def paired(
    wanted: Sequence[Named], saved: Sequence[Named], separator: str
) -> list[int | None]:
    """Return the place of each wanted variable among the saved ones.

    If nothing came or went, order decides: names need to agree only as far as renaming
    leaves them. Otherwise names decide, but for outer ones; and where numbered names
    are left over on both sides they were counted anew, so that none of that name is
    taken.

    Args:
        wanted: The variables that are there, in order, all of different names.
        saved: Those that were there, likewise.
        separator: What stands between the parts of a name.

    Returns:
        A place per wanted variable, None where there is none or it is in doubt. A
        shape may differ where the name is the same.

    Example:
        >>> saved = [("model/a/kernel", (8, 8)), ("model/b/kernel", (8, 8))]
        >>> paired([("b/kernel", (8, 8))], saved, "/")
        [1]
        >>> paired([("dense_1/w", (8, 8))], [("dense/w", (8, 8))], "/")
        [0]
    """
    names = [name for name, _ in wanted]
    places = {name: place for place, (name, _) in enumerate(saved)}
    if set(names) != places.keys() and _same_in_order(wanted, saved, separator):
        return list(range(len(wanted)))
    found = [places.get(name) for name in names]
    for place, other in _by_endings(wanted, found, saved, separator):
        found[place] = other
    left = [name for name, place in zip(names, found, strict=True) if place is None]
    rest = [name for name, place in places.items() if place not in found]
    doubtful = [name for name in left if resembles_any(name, rest, separator)]
    return [
        None if resembles_any(name, doubtful, separator) else place
        for name, place in zip(names, found, strict=True)
    ]


def resembles_any(name: str, others: Iterable[str], separator: str) -> bool:
    """Whether a name is one of the others but for outer names and numbers.

    Args:
        name: A name.
        others: Other names.
        separator: What stands between the parts of a name.

    Example:
        >>> resembles_any("model/dense_1/kernel", ["dense/kernel"], "/")
        True
    """
    bare = _uncounted(name)
    return any(_ends_with(bare, _uncounted(other), separator) for other in others)


def _same_in_order(
    wanted: Sequence[Named], saved: Sequence[Named], separator: str
) -> bool:
    return len(wanted) == len(saved) and all(
        shape == other_shape and resembles_any(name, [other], separator)
        for (name, shape), (other, other_shape) in zip(wanted, saved, strict=True)
    )


def _by_endings(
    wanted: Sequence[Named],
    found: Sequence[int | None],
    saved: Sequence[Named],
    separator: str,
) -> list[tuple[int, int]]:
    """Pairs of places whose names differ by one outer name, as a loaded model's do.

    What differs by another one than most is a coincidence.
    """
    left = [i for i, place in enumerate(found) if place is None]
    rest = [j for j in range(len(saved)) if j not in found]
    outer = {
        (i, j): name
        for i in left
        for j in rest
        if saved[j][1] == wanted[i][1]
        if (name := _outer_name(wanted[i][0], saved[j][0], separator))
    }
    usual = [name for name, _ in Counter(outer.values()).most_common(1)]
    return [pair for pair, name in outer.items() if name in usual]


def _outer_name(name: str, other: str, separator: str) -> tuple[str, bool] | None:
    """What stands in front of one of two names, and of which, if the rest is equal."""
    for short, long, swapped in ((name, other, False), (other, name, True)):
        if long.endswith(separator + short):
            return long.removesuffix(short), swapped
    return None


def _ends_with(name: str, other: str, separator: str) -> bool:
    """Whether two names are equal, or but for an outer one."""
    return name == other or _outer_name(name, other, separator) is not None


def _uncounted(name: str) -> str:
    """A name without the numbers of automatic ones: dense_1/kernel as dense/kernel."""
    return re.sub(r"[_ ]\d+(?=[/_]|$)", "", name)
