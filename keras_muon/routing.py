"""Routes: which rule updates which variable, in which matrix view, and why.

A route is decided once, when the optimizer is built, and is plain data from then on:
it prints, it is JSON, it travels in `get_config`.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from keras_muon.matrix_view import MatrixView
from keras_muon.messages import require_choice
from keras_muon.renaming import Named, paired, resembles_any

Rule = Literal["muon", "adamw"]
Key = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Route:
    """How one variable is updated.

    Args:
        path: The variable's path, as Keras prints it.
        shape: Its shape.
        rule: `"muon"` or `"adamw"`.
        view: Its matrix view. Rule `"muon"` needs one; with `"adamw"` it is kept for
            what has one all the same, such as an output head.
        reason: Why, in a few words.
        certain: False if nothing but caution decided for AdamW.

    Raises:
        ValueError: If rule, view and shape contradict each other.

    Example:
        >>> route = Route("dense/bias", (8,), "adamw", reason="not a matrix")
        >>> Route.from_json(route.to_json()) == route
        True
    """

    path: str
    shape: tuple[int, ...]
    rule: Rule
    view: MatrixView | None = None
    reason: str = ""
    certain: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        require_choice("rule", self.rule, ["muon", "adamw"])
        if self.rule == "muon" and self.view is None:
            raise ValueError(
                f"Route of {self.path!r}: rule 'muon' needs a view. Pass "
                "view=MatrixView(shape, in_axes=..., out_axes=...)."
            )
        if self.view is not None and self.view.shape != self.shape:
            raise ValueError(
                f"Route of {self.path!r}: its view is made for shape "
                f"{self.view.shape}, the variable has shape {self.shape}."
            )

    @property
    def matrix_view(self) -> MatrixView:
        """The view of the variable; an error for one that has none."""
        if self.view is None:
            raise ValueError(f"{self.path!r} is updated by AdamW and has no view.")
        return self.view

    def to_json(self) -> dict[str, Any]:
        """Return the route as a dictionary of plain values."""
        values = dataclasses.asdict(self)
        values["shape"] = list(self.shape)
        values["view"] = self.view.to_json() if self.view else None
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Route":
        """Return the route that `to_json` wrote."""
        view = values.get("view")
        if view is not None and not isinstance(view, MatrixView):
            view = MatrixView.from_json(view)
        return cls(**{**values, "view": view})


def numbered(paths: Sequence[str]) -> list[Key]:
    """Return (path, n) for the n-th variable of that path: paths are not unique.

    Args:
        paths: The variables' paths in order.

    Returns:
        One key per path, all different.

    Example:
        >>> numbered(["a/kernel", "b/kernel", "a/kernel"])
        [('a/kernel', 0), ('b/kernel', 0), ('a/kernel', 1)]
    """
    seen: Counter[str] = Counter()
    keys = []
    for path in paths:
        keys.append((path, seen[path]))
        seen[path] += 1
    return keys


def match_table(
    table: Sequence[Route], variables: Sequence[tuple[str, tuple[int, ...]]]
) -> list[Route | None]:
    """Find each variable's route in a table that was made earlier.

    Variables are matched by path and by the count of that path, see
    `keras_muon.renaming` for models that come under other names, as loaded ones do.
    Routes of variables that are gone, frozen since for example, are left aside.

    Args:
        table: Routes, from `get_config` or given by the user.
        variables: (path, shape) of the variables, in order.

    Returns:
        A route per variable, None where the table has none, or names do not tell.

    Raises:
        ValueError: If a variable has another shape than its route, or if not one
            variable has a name as in the table.

    Example:
        >>> table = [Route("a/bias", (8,), "adamw")]
        >>> match_table(table, [("a/bias", (8,)), ("b/bias", (8,))])[1] is None
        True
    """
    saved = _named([(route.path, route.shape) for route in table])
    wanted = _named(variables)
    matched = []
    for place, (path, shape) in zip(paired(wanted, saved, "/"), variables, strict=True):
        route = None if place is None else table[place]
        if route is not None and route.shape != tuple(shape):
            raise ValueError(
                f"`routes` has {path!r} with shape {route.shape}, but the variable "
                f"has shape {tuple(shape)}. These are routes of another model: use "
                "Muon.for_model(model), or pass routes=None."
            )
        matched.append(route and dataclasses.replace(route, path=path))
    if not any(matched) and not _any_resembles(wanted, saved):
        raise ValueError(
            f"`routes` describes another model: none of its {len(table)} paths "
            f"({listed([r.path for r in table])}) is a variable of this one "
            f"({listed([path for path, _ in variables])}). Use Muon.for_model(model), "
            "or pass routes=None to have this model's routes found."
        )
    return matched


def unique_names(names: Sequence[str]) -> list[str]:
    """Return names, with a number where several are the same.

    Example:
        >>> unique_names(["a/kernel", "b/kernel", "a/kernel"])
        ['a/kernel', 'b/kernel', 'a/kernel 1']
    """
    return [f"{name} {count}" if count else name for name, count in numbered(names)]


def _named(variables: Sequence[tuple[str, tuple[int, ...]]]) -> list[Named]:
    names = unique_names([path for path, _ in variables])
    shapes = [tuple(shape) for _, shape in variables]
    return list(zip(names, shapes, strict=True))


def _any_resembles(wanted: Sequence[Named], saved: Sequence[Named]) -> bool:
    names = [name for name, _ in saved]
    return not wanted or any(resembles_any(name, names, "/") for name, _ in wanted)


def listed(paths: Sequence[str], limit: int = 3) -> str:
    """Return the first few paths in quotes, and how many more there are."""
    shown = ", ".join(repr(path) for path in paths[:limit])
    more = len(paths) - limit
    return f"{shown} and {more} more" if more > 0 else shown or "none"
