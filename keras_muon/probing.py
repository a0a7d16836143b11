"""Running a layer's own `call` on symbolic tensors, without a trace in the model."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras

from keras_muon.sublayers import walked


class Probe(keras.Layer):
    """Runs another layer's `call` symbolically, without adding to its graph."""

    def __init__(self, target: Any):
        super().__init__(name="probe")
        # As an ordinary attribute it would be tracked as a sublayer.
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "found", [])

    def build(self, *shapes: Any, **named_shapes: Any) -> None:
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        return self.target.call(*args, **kwargs)


@contextmanager
def unchanged_nodes(layer: Any) -> Iterator[None]:
    """Take back the graph nodes that layers record when called symbolically.

    Losses that a layer adds are no outputs, and would refuse a symbolic tensor.
    """
    inside = []
    for current, _ in walked(layer):
        # A layer inside may be run so on its own while this is open.
        before = vars(current).get("add_loss")
        nodes = [current._inbound_nodes, current._outbound_nodes]
        counts = [(of_a_kind, len(of_a_kind)) for of_a_kind in nodes]
        inside.append((current, counts, before))
        object.__setattr__(current, "add_loss", lambda *losses, **named: None)
    try:
        yield
    finally:
        for current, counts, before in inside:
            for of_a_kind, count in counts:
                del of_a_kind[count:]
            if before is None:
                object.__delattr__(current, "add_loss")
            else:
                object.__setattr__(current, "add_loss", before)


def order_of_calls(layer: Any, leaves: list[Any], args: Any, kwargs: Any) -> list:
    """Run a layer on symbolic tensors and note which leaves it calls."""
    order: list[Any] = []
    with ExitStack() as stack:
        for leaf in leaves:
            stack.enter_context(_recorded(leaf, order))
        try:
            Probe(layer)(*args, **kwargs)
        except Exception:  # Any failure of the user's code means: not this way.
            return []
    return order


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
