"""What comes after what in the graph of symbolic tensors that Keras records."""

from collections.abc import Iterable, Sequence
from typing import Any


def last_outputs(outputs: Sequence[Any]) -> list[Any]:
    """Return the outputs of a graph that no other output is computed from.

    What is an output and goes on into the model, such as features, is hidden as well.

    Args:
        outputs: Symbolic tensors.
    """
    used = used_for(outputs)
    return [output for output in outputs if id(output) not in used]


def used_for(tensors: Iterable[Any]) -> set[int]:
    """Return `id(tensor)` of all that some tensors are computed from.

    Args:
        tensors: Symbolic tensors.
    """
    used: set[int] = set()
    visited, pending = set(), list(tensors)
    while pending:
        history = getattr(pending.pop(), "_keras_history", None)
        if history is None or history.operation is None:
            continue
        operation, node_index, _ = history
        if (id(operation), node_index) not in visited:
            visited.add((id(operation), node_index))
            inputs = operation._inbound_nodes[node_index].input_tensors
            used.update(map(id, inputs))
            pending.extend(inputs)
    return used
