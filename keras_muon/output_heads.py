"""Output heads: the weighted layers after which a model has no other.

A head maps features to classes or tokens. Muon's authors keep it on AdamW, as they
do with embeddings, because its rows are looked up or compared one by one.

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import keras

from keras_muon.sublayers import weighted_leaves
from keras_muon.symbolic_calls import build_specs, symbolic_calls


class Heads(NamedTuple):
    """The layers that produce a model's outputs.

    Args:
        ids: `id(layer)` of each.
        proven: False if the model could not be run symbolically, so that the layer
            created last stands for the head.
    """

    ids: set[int]
    proven: bool = True


def output_heads(model: Any) -> Heads:
    """Return the layers that produce a model's outputs.

    Functional and sequential models are followed back from every output through
    layers without weights, and into nested models. Of a model or layer with its own
    `call`, the head is the weighted layer that is called last.

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
    if _is_graph(model):
        found = list(_heads_of_tensors(keras.tree.flatten(model.outputs), set()))
    else:
        found = [_last_called(model, build_specs(model))]
    ids = {id(leaf) for leaf, _ in found if leaf is not None}
    return Heads(ids, all(proven for _, proven in found))


# A leaf, or None where there is none, and whether it is proven.
Found = tuple[Any, bool]


def _is_graph(layer: Any) -> bool:
    outputs = getattr(layer, "outputs", None)
    return isinstance(layer, keras.Model) and bool(outputs)


def _heads_of_tensors(tensors: list[Any], seen: set) -> Iterator[Found]:
    """Walk back from symbolic tensors to the first weighted layer on each path."""
    for tensor in tensors:
        operation, node_index, position = tensor._keras_history
        key = (id(operation), node_index)
        if operation is None or key in seen:
            continue
        if not getattr(operation, "weights", None):
            seen.add(key)
            node = operation._inbound_nodes[node_index]
            yield from _heads_of_tensors(node.input_tensors, seen)
        elif _is_graph(operation):
            inner = keras.tree.flatten(operation.outputs)[position]
            yield from _heads_of_tensors([inner], seen)
        else:
            node = operation._inbound_nodes[node_index]
            call = (node.arguments.args, node.arguments.kwargs)
            yield _last_called(operation, call)


def _last_called(layer: Any, call: Any) -> Found:
    """The weighted leaf that `layer.call` calls last."""
    leaves = weighted_leaves(layer)
    if len(leaves) < 2:
        return (leaves[0] if leaves else None), True
    for args, kwargs in symbolic_calls(layer, call):
        order = _order_of_calls(layer, leaves, args, kwargs)
        if order:
            return order[-1], True
    return leaves[-1], False


def _order_of_calls(layer: Any, leaves: list[Any], args: Any, kwargs: Any) -> list:
    """Run a layer on symbolic tensors and note which leaves it calls."""
    order: list[Any] = []
    with ExitStack() as stack:
        for leaf in leaves:
            stack.enter_context(_recorded(leaf, order))
        try:
            _Probe(layer)(*args, **kwargs)
        except Exception:  # Any failure of the user's code means: not this way.
            return []
    return order


class _Probe(keras.Layer):
    """Runs another layer's `call` symbolically, without adding to its graph."""

    def __init__(self, target: Any):
        super().__init__(name="probe")
        # As an ordinary attribute it would be tracked as a sublayer.
        object.__setattr__(self, "target", target)

    def build(self, *shapes: Any, **named_shapes: Any) -> None:
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.target.call(*args, **kwargs)


@contextmanager
def _recorded(leaf: Any, order: list[Any]) -> Iterator[None]:
    """Append `leaf` to `order` whenever it is called, as long as this is open."""
    names = [name for name in ("call", "quantized_call") if hasattr(leaf, name)]
    before = {name: vars(leaf)[name] for name in names if name in vars(leaf)}
    for name in names:
        object.__setattr__(leaf, name, _noting(getattr(leaf, name), leaf, order))
    try:
        yield
    finally:
        for name in names:
            object.__delattr__(leaf, name)
        vars(leaf).update(before)


def _noting(call: Any, leaf: Any, order: list[Any]) -> Any:
    def noting_call(*args: Any, **kwargs: Any) -> Any:
        order.append(leaf)
        return call(*args, **kwargs)

    return noting_call
