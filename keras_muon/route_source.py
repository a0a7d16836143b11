"""Where an optimizer's routes come from: a table, a model, the user's patterns."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from keras_muon.find_model import find_model
from keras_muon.matrix_view import MatrixView
from keras_muon.messages import level_of_the_user, require_flag
from keras_muon.model_walk import routes_of_model, routes_of_variables
from keras_muon.route_patterns import apply_patterns, check_patterns
from keras_muon.routing import Route, match_table


class RouteSource:
    """What the user said about routes, until the variables are known.

    Args:
        exclude: A pattern or several, of variables that go to AdamW.
        routes: None, a dictionary of patterns, or a table of `Route`s or their JSON.
            A table may also hold the patterns that it was made with, as `to_json`
            writes them; they decide for variables that it does not know.
        strict: Whether a matrix of which nothing is proven is an error, and not only
            a warning.

    Raises:
        TypeError: If an argument is none of these.
        ValueError: If a route in the table contradicts itself, or a pattern is no
            regular expression.

    Example:
        >>> RouteSource("head/.*", None).exclude
        ['head/.*']
    """

    def __init__(self, exclude: Any, routes: Any, strict: bool = False):
        self.strict = require_flag("strict", strict)
        self.exclude = _patterns(exclude)
        self.overrides: Mapping[str, Any] = {}
        self.table: list[Route] | None = None
        if isinstance(routes, Mapping):
            self.overrides = dict(routes)
        elif routes is not None:
            self.table, self.overrides = _table(routes)
        check_patterns(self.exclude, self.overrides)

    def resolve(self, variables: Sequence[Any], model: Any = None) -> list[Route]:
        """Return the route of each variable.

        Args:
            variables: The `keras.Variable`s to update, in order.
            model: The model that owns them. None looks for it among the callers.

        Returns:
            One `Route` per variable.

        Raises:
            ValueError: If a pattern matches nothing, the table is another model's, or
                with `strict` nothing proves what some matrices are.

        Warns:
            UserWarning: Once, if matrices went to AdamW only because nothing proves
                what they are.
        """
        routes = told = self._from_table(variables)
        if any(route is None for route in routes):
            model = find_model(variables) if model is None else model
            derived = (
                routes_of_variables(variables)
                if model is None
                else routes_of_model(model, variables)
            )
            pairs = zip(routes, derived, strict=True)
            routes = [known or other for known, other in pairs]
        result = apply_patterns(
            [route for route in routes if route is not None],
            exclude=self.exclude,
            overrides=self.overrides,
            other_paths=[route.path for route in self.table or ()],
        )
        pairs = zip(told, result, strict=True)
        fresh = [route for known, route in pairs if known is None]
        open_routes = [route for route in fresh if not route.certain]
        if open_routes and self.strict:
            raise ValueError(f"`strict` is True: {_not_proven(open_routes, model)}")
        if open_routes:
            warnings.warn(
                _not_proven(open_routes, model),
                UserWarning,
                stacklevel=level_of_the_user(),
            )
        return result

    def to_json(self, routes: Sequence[Route]) -> dict[str, Any]:
        """Return the arguments that lead to the same routes again.

        Args:
            routes: What `resolve` returned, or nothing if it was not called yet.

        Returns:
            `exclude` and `routes` as plain values.
        """
        table = list(routes) or self.table
        patterns = {p: _plain(wanted) for p, wanted in self.overrides.items()}
        plain: Any = patterns
        if table is not None:
            kept = [{"pattern": p, "wanted": wanted} for p, wanted in patterns.items()]
            plain = [*(route.to_json() for route in table), *kept]
        return {"exclude": self.exclude or None, "routes": plain or None}

    def _from_table(self, variables: Sequence[Any]) -> list[Route | None]:
        if self.table is None:
            return [None] * len(variables)
        return match_table(self.table, [(v.path, tuple(v.shape)) for v in variables])


def _plain(wanted: Any) -> Any:
    if isinstance(wanted, MatrixView):
        return wanted.to_json()
    if isinstance(wanted, Mapping):
        return {name: list(axes) for name, axes in wanted.items()}
    return wanted


def _patterns(exclude: Any) -> list[str]:
    if exclude is None:
        return []
    patterns = [exclude] if isinstance(exclude, str) else exclude
    sequence = isinstance(patterns, (list, tuple, set, frozenset))
    if not sequence or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(
            "`exclude` must be a regular expression or a list of them, as strings; "
            f"received {exclude!r}."
        )
    return list(patterns)


def _table(routes: Any) -> tuple[list[Route], dict[str, Any]]:
    """The routes of a table, and the patterns among them."""
    text = isinstance(routes, (str, Route))
    if text or not isinstance(routes, Sequence) or not routes:
        raise TypeError(
            "`routes` must be a dictionary from patterns to rules, or a list of "
            f"routes; received {routes!r}. Example: routes={{'.*head/.*': 'adamw'}}; "
            "None has the routes found."
        )
    kept = [entry for entry in routes if _is_pattern(entry)]
    try:
        table = [
            route if isinstance(route, Route) else Route.from_json(route)
            for route in routes
            if not _is_pattern(route)
        ]
        return table, {entry["pattern"]: entry["wanted"] for entry in kept}
    except (TypeError, AttributeError):
        raise TypeError(
            "`routes` must be a list of routes or of what Route.to_json returns; "
            f"received {routes!r}. Patterns are a dictionary, "
            "routes={'.*head/.*': 'adamw'}."
        ) from None


def _is_pattern(entry: Any) -> bool:
    return isinstance(entry, Mapping) and entry.keys() == {"pattern", "wanted"}


def _not_proven(routes: Sequence[Route], model: Any) -> str:
    """What to say of matrices that went to AdamW out of caution."""
    listed = "\n".join(f"  {r.path} {r.shape}: {r.reason}" for r in routes)
    advice = "" if model is not None else _WITHOUT_A_MODEL
    return (
        f"Muon leaves {len(routes)} variables to AdamW without a proof that they "
        f"belong there:\n{listed}\n{advice}To decide yourself, pass "
        "routes={'path/pattern': 'adamw'} or routes={'path/pattern': "
        "dict(in_axes=(0,), out_axes=(1,))}; for a layer of your own, declare it by "
        "keras_muon.register_views or a method muon_views."
    )


_WITHOUT_A_MODEL = "If they belong to a model, use Muon.for_model(model). "
