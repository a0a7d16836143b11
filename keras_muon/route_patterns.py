"""The user's patterns over paths: what they exclude, what they decide."""

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_muon.matrix_view import MatrixView
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


def _overridden(route: Route, pattern: str, wanted: Any) -> Route:
    reason = f"by the user: {pattern}"
    if wanted == "adamw":
        return dataclasses.replace(route, rule="adamw", reason=reason, certain=True)
    if wanted == "muon":
        view = route.view or _obvious_view(route, pattern)
    elif isinstance(wanted, MatrixView):
        view = wanted
    elif isinstance(wanted, Mapping):
        view = _view_of_axes(route, pattern, wanted)
    else:
        raise ValueError(
            f"`routes[{pattern!r}]` must be 'muon', 'adamw', a MatrixView, or a "
            f"dictionary of in_axes, out_axes and batch_axes; received {wanted!r}."
        )
    return dataclasses.replace(
        route, rule="muon", view=view, reason=reason, certain=True
    )


def _view_of_axes(route: Route, pattern: str, axes: Mapping[str, Any]) -> MatrixView:
    try:
        return MatrixView(**{"shape": route.shape, **axes})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`routes[{pattern!r}]` gives {route.path!r} no view: {error} Write "
            "in_axes, out_axes and, where there are independent matrices, batch_axes."
        ) from None


def _obvious_view(route: Route, pattern: str) -> MatrixView:
    if len(route.shape) == 2:
        return MatrixView.of_last_axes(route.shape)
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
            f"Pattern {pattern!r} is not a regular expression: {error}."
        ) from None


def _matches_nothing(pattern: str, paths: Sequence[str]) -> ValueError:
    inside = [path for path in paths if re.search(pattern, path)]
    close = inside[:3] or difflib.get_close_matches(pattern, paths, n=3, cutoff=0.3)
    hint = (
        f" It matches a part of {listed(inside)}: patterns must match"
        if inside
        else f" Close: {listed(close)}. Patterns match"
    )
    return ValueError(
        f"Pattern {pattern!r} in `exclude` or `routes` matches none of the "
        f"{len(paths)} variables.{hint} whole paths; write '.*' where anything may "
        "stand."
    )
