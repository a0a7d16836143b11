"""What comes after what in the graph of symbolic tensors that Keras records."""

from collections.abc import Iterable, Sequence
from typing import Any

# An operation of Keras and the number of its call.
Place = tuple[int, int]


def last_outputs(outputs: Sequence[Any]) -> list[Any]:
    """Return the outputs of a graph that no other output is computed from.

    What is an output and goes on into the model, such as features, is hidden as well.

    Args:
        outputs: Symbolic tensors.
    """
    used: set[int] = set()
    for tensor in walked_back(outputs):
        used.update(id(given) for given in given_to(tensor))
    return [output for output in outputs if id(output) not in used]


def places_before(tensor: Any) -> set[Place]:
    """Return where everything was computed that a tensor's own operation was given.

    Args:
        tensor: A symbolic tensor.
    """
    found = map(place_of, walked_back(given_to(tensor)))
    return {place for place in found if place is not None}


def walked_back(tensors: Iterable[Any]) -> list[Any]:
    """Return tensors and all that they are computed from, one for each operation."""
    found, visited, pending = [], set(), list(tensors)
    while pending:
        tensor = pending.pop()
        place = place_of(tensor)
        if place is not None and place not in visited:
            visited.add(place)
            found.append(tensor)
            pending.extend(given_to(tensor))
    return found


def given_to(tensor: Any) -> list[Any]:
    """Return the symbolic tensors that a tensor's operation was given."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return []
    return history.operation._inbound_nodes[history.node_index].input_tensors


def place_of(tensor: Any) -> Place | None:
    """Return the operation and call that a tensor comes from, None for an input."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        return None
    return id(history.operation), history.node_index
