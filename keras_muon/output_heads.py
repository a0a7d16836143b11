"""Output heads: the weighted layers after which a model has no other.

A head maps features to classes or tokens. Muon's authors keep it on AdamW, as they
do with embeddings, because its rows are looked up or compared one by one.

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from keras_muon.sublayers import weighted_leaves


def output_heads(model: Any) -> set[int]:
    """Return the ids of the layers that produce a model's outputs.

    Functional and sequential models are followed back from every output through
    layers without weights, and into nested models. Of a model or layer with its own
    `call`, the head is the weighted layer that is called last.

    Args:
        model: A built `keras.Model`, or any layer.

    Returns:
        `id(layer)` of each head. Empty if it has none, or cannot be run symbolically.

    Example:
        >>> inputs = keras.Input((8,))
        >>> head = keras.layers.Dense(3)
        >>> model = keras.Model(inputs, keras.layers.Softmax()(head(inputs)))
        >>> output_heads(model) == {id(head)}
        True
    """
    if _is_graph(model):
        return set(_heads_of_tensors(keras.tree.flatten(model.outputs), set()))
    return set(_last_called(model, _build_specs(model)))


def _is_graph(layer: Any) -> bool:
    outputs = getattr(layer, "outputs", None)
    return isinstance(layer, keras.Model) and bool(outputs)


def _heads_of_tensors(tensors: list[Any], seen: set) -> Iterator[int]:
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
            yield from _last_called(operation, call)


def _last_called(layer: Any, call: Any) -> Iterator[int]:
    """Yield the weighted leaf that `layer.call` calls last."""
    leaves = weighted_leaves(layer)
    if len(leaves) == 1 or call is None:
        yield from [id(leaf) for leaf in leaves if len(leaves) == 1]
        return
    for dtype in ("float32", "int32"):
        order = _order_of_calls(layer, leaves, call, dtype)
        if order:
            yield id(order[-1])
            return


def _order_of_calls(layer: Any, leaves: list[Any], call: Any, dtype: str) -> list[Any]:
    """Run a layer on symbolic tensors and note which leaves it calls."""
    args, kwargs = keras.tree.map_structure(
        lambda x: _fresh(x, dtype) if isinstance(x, keras.KerasTensor) else x, call
    )
    order: list[Any] = []
    with ExitStack() as stack:
        for leaf in leaves:
            stack.enter_context(_recorded(leaf, order))
        try:
            _Probe(layer)(*args, **kwargs)
        except Exception:  # Any failure of the user's code means: not known.
            return []
    return order


def _fresh(tensor: Any, dtype: str) -> Any:
    """A tensor of the same shape; one without a dtype of its own gets `dtype`."""
    given = tensor.dtype if tensor.name != UNKNOWN_DTYPE else dtype
    return keras.KerasTensor(tensor.shape, dtype=given)


UNKNOWN_DTYPE = "unknown_dtype"


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


def _build_specs(layer: Any) -> Any:
    """The symbolic (args, kwargs) of a layer's call, from what it was built with."""
    config = layer.get_build_config() or {}
    if "input_shape" in config:
        shapes = config["input_shape"]
        return ((_from_shapes(shapes),), {})
    if "shapes_dict" in config:
        shapes = config["shapes_dict"]
        named = {name.removesuffix("_shape"): s for name, s in shapes.items()}
        return ((), {name: _from_shapes(s) for name, s in named.items()})
    return None


def _from_shapes(shapes: Any) -> Any:
    """Replace every shape in a structure by a symbolic tensor."""
    if isinstance(shapes, dict):
        return {name: _from_shapes(shape) for name, shape in shapes.items()}
    if all(extent is None or isinstance(extent, int) for extent in shapes):
        return keras.KerasTensor(tuple(shapes), dtype="float32", name=UNKNOWN_DTYPE)
    return type(shapes)(_from_shapes(shape) for shape in shapes)
