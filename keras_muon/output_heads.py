"""Output heads: the weighted layers after which a model has no other.

A head maps features to classes or tokens. Muon's authors keep it on AdamW, as they
do with embeddings, because its rows are looked up or compared one by one.

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from keras_muon.graph_order import last_outputs, used_for
from keras_muon.probing import Probe, order_of_calls, unchanged_nodes
from keras_muon.sublayers import weighted_leaves
from keras_muon.symbolic_calls import build_specs, symbolic_calls
from keras_muon.tied_products import Tables, tables_of, tied_heads


class Heads(NamedTuple):
    """The layers that produce a model's outputs.

    Args:
        ids: `id(layer)` of each.
        proven: False if the model could not be run symbolically as a graph, so that
            the layer called last, or else created last, stands for the head.
    """

    ids: set[int]
    proven: bool = True


def output_heads(model: Any) -> Heads:
    """Return the layers that produce a model's outputs.

    From every output that no other one needs, the model's graph is followed back
    through layers without weights, and into nested models. A model or layer with its
    own `call` is run once on symbolic tensors, which makes such a graph. Where its code
    cannot be run so, the weighted layer that is called last stands for the head, or the
    one created last where no call can be followed, and is not proven. A product with
    the table of an embedding is a head that is no layer.

    Args:
        model: A built `keras.Model`, or any layer.

    Returns:
        The heads; none if the model has no weights.

    Example:
        >>> inputs = keras.Input((8,))
        >>> head = keras.layers.Dense(3)
        >>> model = keras.Model(inputs, keras.layers.Softmax()(head(inputs)))
        >>> output_heads(model).ids == {id(head)}
        True
    """
    tables = tables_of(model)
    if _is_graph(model):
        outputs = last_outputs(keras.tree.flatten(model.outputs))
        found = list(_heads_of_tensors(outputs, set(), tables))
    else:
        found = _heads_of_call(model, build_specs(model), tables, sure_of_order=False)
    ids = {id(leaf) for leaf, _ in found if leaf is not None}
    return Heads(ids, all(proven for _, proven in found))


# A leaf, or None where there is none, and whether it is proven.
Found = tuple[Any, bool]


def _is_graph(layer: Any) -> bool:
    outputs = getattr(layer, "outputs", None)
    return isinstance(layer, keras.Model) and bool(outputs)


def _heads_of_tensors(
    tensors: list[Any], seen: set, tables: Tables, behind_gain: bool = False
) -> Iterator[Found]:
    """Walk back from symbolic tensors to the first weighted layer on each path.

    A layer whose weights are gains (a norm, PReLU, a temperature) may stand behind the
    head. The path goes on through it as long as it does not fork: where branches meet,
    it is the norm at the end of a residual stream.
    """
    for _, heads in _first_with_weights(tensors, seen, tables, behind_gain):
        yield from heads


def _first_with_weights(
    tensors: list[Any], seen: set, tables: Tables, behind_gain: bool
) -> Iterator[tuple[Any, list[Found]]]:
    """Yield the tensor on each path that the first weights make, and their heads."""
    for tensor in tensors:
        history = getattr(tensor, "_keras_history", None)
        if history is None or history.operation is None:
            continue
        operation, node_index, position = history
        node = operation._inbound_nodes[node_index]
        if (id(operation), node_index) in seen:
            continue
        weights = getattr(operation, "weights", [])
        matrices = any(len(variable.shape) > 1 for variable in weights)
        if matrices and _is_graph(operation):
            inner = keras.tree.flatten(operation.outputs)[position]
            # Of every call anew: a model may be called twice.
            yield tensor, list(_heads_of_tensors([inner], set(), tables, behind_gain))
            continue
        seen.add((id(operation), node_index))
        call = (node.arguments.args, node.arguments.kwargs)
        tied = tied_heads(operation, call, tables)
        if tied:
            yield tensor, tied
        elif matrices:
            yield tensor, _heads_of_call(operation, call, tables, True, behind_gain)
        elif len(node.input_tensors) == 1 or not (behind_gain or weights):
            gain = behind_gain or bool(weights)
            found = list(_first_with_weights(node.input_tensors, seen, tables, gain))
            adds = type(operation).__name__ == "Add"
            yield from _last_branches(found) if adds else found


def _last_branches(found: list[tuple[Any, list[Found]]]) -> list[tuple[Any, list]]:
    """Of branches that are added up, return those that no other one is computed from.

    The others are earlier ones of a residual stream.
    """
    used = used_for(tensor for tensor, heads in found if heads)
    return [(tensor, heads) for tensor, heads in found if id(tensor) not in used]


def _heads_of_call(
    layer: Any,
    call: Any,
    tables: Tables,
    sure_of_order: bool,
    behind_gain: bool = False,
) -> list[Found]:
    """The heads of a layer with its own `call`: by its graph, else by order."""
    leaves = weighted_leaves(layer)
    if len(leaves) < 2:
        return [(leaf, True) for leaf in leaves]
    calls = list(symbolic_calls(layer, call))
    for args, kwargs in calls:
        probe = _GraphProbe(layer, tables, behind_gain)
        with unchanged_nodes(layer), keras.StatelessScope():
            try:
                probe(*args, **kwargs)
            except Exception:  # Any failure of the user's code means: not this way.
                continue
        if probe.found or behind_gain:
            return probe.found
    if behind_gain:
        # Several weights and then a norm: the end of a residual stream, and no head.
        return []
    for args, kwargs in calls:
        order = order_of_calls(layer, leaves, args, kwargs)
        if order:
            return [(order[-1], sure_of_order)]
    return [(leaves[-1], False)]


class _GraphProbe(Probe):
    """Runs another layer's `call` so that the layers inside record their graph."""

    def __init__(self, target: Any, tables: Tables, behind_gain: bool):
        super().__init__(target)
        object.__setattr__(self, "tables", tables)
        self.behind_gain = behind_gain

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self.target.call(*args, **kwargs)
        # Now, because Keras is about to make this probe the outputs' origin.
        tensors = keras.tree.flatten(outputs)
        walk = _heads_of_tensors(tensors, set(), self.tables, self.behind_gain)
        found = list(walk)
        object.__setattr__(self, "found", found)
        return outputs
