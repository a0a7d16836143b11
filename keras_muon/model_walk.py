"""From a Keras model to routes: walk the layers, ask each for its matrices."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_muon.layer_views import role_of
from keras_muon.output_heads import Heads, output_heads
from keras_muon.roles import Role, role_by_name
from keras_muon.routing import Route
from keras_muon.sublayers import owned_variables, walked

# Below 4 rows a polar factor is little more than a normalised gradient, and at more
# than 128:1 most singular directions of the long side do not exist. The same bounds
# are used by timm's Muon.
SHORTEST_SIDE = 4
LARGEST_ASPECT = 128


class _Owner(NamedTuple):
    layer: Any
    parent: Any


def routes_of_model(model: Any, variables: Sequence[Any]) -> list[Route]:
    """Return a route for each variable from the layers that own it.

    Args:
        model: A built `keras.Model`, or any layer.
        variables: Variables of the model, in the order of the routes.

    Returns:
        One `Route` per variable. Those of unknown layers are not certain.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((16,)), keras.layers.Dense(8), keras.layers.Dense(4)])
        >>> [r.rule for r in routes_of_model(model, model.trainable_variables)]
        ['muon', 'adamw', 'adamw', 'adamw']
    """
    owners: dict[int, list[_Owner]] = {}
    for layer, parent in walked(model):
        for variable in owned_variables(layer):
            owners.setdefault(id(variable), []).append(_Owner(layer, parent))
    heads = output_heads(model)
    return [_route(v, owners.get(id(v), []), heads) for v in variables]


def routes_of_variables(variables: Sequence[Any]) -> list[Route]:
    """Return what names and shapes alone prove, where no model is known.

    Args:
        variables: `keras.Variable`s, in the order of the routes.

    Returns:
        One `Route` per variable, all to AdamW but recurrent kernels. Those that may
        be hidden matrices are not certain.
    """
    return [_route_from(v, _provable_role(v)) for v in variables]


def _provable_role(variable: Any) -> Role:
    if variable.name == "recurrent_kernel" and len(variable.shape) == 2:
        # From state to state: never an output head, and square up to the gates.
        return role_of(keras.layers.SimpleRNNCell(1, name="cell"), variable)
    role = role_by_name(variable)
    return role or Role(None, "its layer is not known", certain=False)


def _route(variable: Any, owners: list[_Owner], heads: Heads) -> Route:
    role = _combined([role_of(o.layer, variable, o.parent) for o in owners])
    # From state to state: no output head, though its layer may be the last.
    inner = variable.name == "recurrent_kernel"
    last = not inner and any(id(o.layer) in heads.ids for o in owners)
    if role.view is not None and last:
        reason = "output head" if heads.proven else "perhaps the output head"
        role = role._replace(reason=reason, certain=heads.proven)
        return _route_from(variable, role, head=True)
    return _route_from(variable, role)


def _combined(roles: list[Role]) -> Role:
    """One role out of those that several layers give to a shared variable.

    A layer that is known to use it as something else than a hidden matrix wins: a
    tied embedding stays an embedding. An unknown layer decides nothing.
    """
    known = [role for role in roles if role.certain]
    others = [role for role in known if role.view is None]
    if others or known:
        return (others or known)[0]
    return roles[0] if roles else Role(None, "not in a layer", certain=False)


def _route_from(variable: Any, role: Role, head: bool = False) -> Route:
    view, reason = role.view, role.reason
    thin = False
    if view is not None and not head:
        short, long = sorted((view.fan_in, view.fan_out))
        thin = short < SHORTEST_SIDE or long > LARGEST_ASPECT * short
        reason = f"too thin: {view.fan_in} x {view.fan_out}" if thin else reason
    return Route(
        variable.path,
        tuple(variable.shape),
        "adamw" if view is None or head or thin else "muon",
        view,
        reason,
        role.certain,
    )
