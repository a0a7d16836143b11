"""The user's patterns over paths: what they exclude, what they decide."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_muon.matrix_view import MatrixView, view_from
from keras_muon.routing import Route, listed


def apply_patterns(
    routes: Sequence[Route],
    *,
    exclude: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    other_paths: Sequence[str] = (),
) -> list[Route]:
    """Return routes with the user's patterns applied.

    A pattern is a regular expression that must match a whole path.

    Args:
        routes: Routes as derived from the model.
        exclude: Patterns of variables that go to AdamW.
        overrides: For each pattern `"muon"`, `"adamw"`, a `MatrixView`, or a
            dictionary of `in_axes`, `out_axes` and `batch_axes`. Later patterns win
            over earlier ones, and `exclude` over all.
        other_paths: Paths that a pattern may match instead, of variables that were
            there when the patterns were written and are frozen now.

    Returns:
        The routes in the same order.

    Raises:
        ValueError: If a pattern matches no path, is no regular expression, or asks
            for Muon where the matrix cannot be known.

    Example:
        >>> route = Route("head/kernel", (8, 2), "adamw", reason="output head")
        >>> apply_patterns([route], overrides={"head/.*": "muon"})[0].rule
        'muon'
    """
    check_patterns(exclude, overrides)
    result = list(routes)
    patterns = [*(overrides or {}).items(), *((p, "adamw") for p in exclude)]
    for pattern, wanted in patterns:
        expression = _compiled(pattern)
        found = [i for i, r in enumerate(result) if expression.fullmatch(r.path)]
        if not found and not any(map(expression.fullmatch, other_paths)):
            raise _matches_nothing(pattern, [route.path for route in routes])
        for index in found:
            result[index] = _overridden(result[index], pattern, wanted)
    return result


def check_patterns(
    exclude: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> None:
    """Refuse what cannot be right for any variable, before there are any.

    Args:
        exclude: As for `apply_patterns`.
        overrides: As for `apply_patterns`.

    Raises:
        ValueError: If a pattern is no regular expression, or a rule is unknown.
    """
    for pattern in [*exclude, *(overrides or {})]:
        _compiled(pattern)
    for pattern, wanted in (overrides or {}).items():
        rule = isinstance(wanted, str) and wanted in RULES
        if not rule and not isinstance(wanted, (MatrixView, Mapping)):
            raise ValueError(
                f"`routes[{pattern!r}]` must be 'muon', 'adamw', a MatrixView, or a "
                "dictionary of in_axes, out_axes and batch_axes; received "
                f"{wanted!r}."
            )


RULES = ("muon", "adamw")


def _overridden(route: Route, pattern: str, wanted: Any) -> Route:
    reason = f"by the user: {pattern}"
    if wanted == "adamw":
        return dataclasses.replace(route, rule="adamw", reason=reason, certain=True)
    if wanted == "muon":
        view = route.view or _obvious_view(route, pattern)
    else:
        view = view_from(wanted, route.shape, f"`routes[{pattern!r}]`")
    return dataclasses.replace(
        route, rule="muon", view=view, reason=reason, certain=True
    )


def _obvious_view(route: Route, pattern: str) -> MatrixView:
    if len(route.shape) == 2:
        return MatrixView.of_last_axes(route.shape)
    if len(route.shape) < 2:
        raise ValueError(
            f"`routes[{pattern!r}]` is 'muon', but {route.path!r}, shape "
            f"{route.shape}, is no matrix. Write a pattern that leaves it out."
        )
    raise ValueError(
        f"`routes[{pattern!r}]` is 'muon', but which axes of {route.path!r}, shape "
        f"{route.shape}, are in and out cannot be known from its shape. Say it: "
        f"routes={{{pattern!r}: dict(in_axes=(0,), out_axes=(1, 2))}}."
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(
            f"`exclude` or `routes` has the pattern {pattern!r}, which is no regular "
            f"expression: {error}."
        ) from None


def _matches_nothing(pattern: str, paths: Sequence[str]) -> ValueError:
    inside = [path for path in paths if re.search(pattern, path)]
    close = inside[:3] or _close(pattern, paths)
    hint = f"{'Close' if close else 'There are'}: {listed(close or paths)}. Patterns"
    if inside:
        hint = f"It matches a part of {listed(inside)}: patterns must"
    return ValueError(
        f"Pattern {pattern!r} in `exclude` or `routes` matches none of the "
        f"{len(paths)} variables. {hint} match whole paths; write '.*' where anything "
        "may stand."
    )


def _close(pattern: str, paths: Sequence[str]) -> list[str]:
    """Return up to three paths that have most letters of a pattern in a row."""
    letters = re.sub(r"\\.|\W", "", pattern).lower()

    def shared(path: str) -> float:
        found = difflib.SequenceMatcher(None, letters, re.sub(r"\W", "", path).lower())
        return sum(
            block.size for block in found.get_matching_blocks() if block.size > 2
        )

    close = sorted(paths, key=shared, reverse=True)
    return [path for path in close[:3] if shared(path) > len(letters) / 2]
