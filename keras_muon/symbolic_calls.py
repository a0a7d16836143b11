"""Arguments on which a layer can be run symbolically, from what it was built with."""

import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras

# Marks a symbolic tensor whose shape is known and whose dtype is not.
UNKNOWN_DTYPE = "unknown_dtype"

# More inputs of unknown dtype than this are all tried with the same one.
MOST_INPUTS = 4

# Code that counts up to an extent, such as a causal mask, needs it to be known.
SOME_EXTENT = 16

# Arguments of `call` that Keras fills in, or that need not be tensors.
OPTIONAL = ("training", "mask", "kwargs", "args")


def build_specs(layer: Any) -> Any:
    """Return the symbolic (args, kwargs) of a layer's call, as it was built.

    Args:
        layer: A built `keras.Layer`.

    Returns:
        The arguments, with dtypes left open, or None if Keras did not record shapes.
    """
    config = layer.get_build_config() or {}
    if "input_shape" in config:
        return ((_from_shapes(config["input_shape"]),), {})
    if config.get("shapes_dict"):
        shapes = config["shapes_dict"]
        named = {name.removesuffix("_shape"): s for name, s in shapes.items()}
        return ((), {name: _from_shapes(s) for name, s in named.items()})
    return None


def symbolic_calls(layer: Any, call: Any) -> Iterator[tuple[tuple, dict]]:
    """Yield (args, kwargs) to try, the likeliest first.

    Args:
        layer: The layer that is to be called.
        call: (args, kwargs) with symbolic tensors, or None.

    Yields:
        Copies with every open dtype settled, first as floats, then as integers; the
        same with open extents settled; and both with arguments of `call` that were
        not recorded filled in.
    """
    if call is None or not (call[0] or call[1]):
        return
    calls = (call, _with_missing_arguments(layer, *call))
    for (args, kwargs), extent in itertools.product(calls, (None, SOME_EXTENT)):
        tensors = [t for t in keras.tree.flatten((args, kwargs)) if _is_open(t)]
        repeat = len(tensors) if len(tensors) <= MOST_INPUTS else 1
        for dtypes in itertools.product(("float32", "int32"), repeat=repeat):
            settled = _settling(itertools.cycle(dtypes), extent)
            yield keras.tree.map_structure(settled, (args, kwargs))


def _with_missing_arguments(layer: Any, args: tuple, kwargs: dict) -> tuple:
    """Give every other argument of `call` the first input: Keras records no more."""
    names = [n for n in inspect.signature(layer.call).parameters if n not in OPTIONAL]
    first = args[0] if args else next(iter(kwargs.values()))
    missing = [name for name in names[len(args) :] if name not in kwargs]
    return args, kwargs | dict.fromkeys(missing, first)


def _is_open(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor) and value.name == UNKNOWN_DTYPE


def _settling(dtypes: Iterator[str], extent: int | None) -> Callable[[Any], Any]:
    def settled(value: Any) -> Any:
        if not isinstance(value, keras.KerasTensor):
            return value
        dtype = next(dtypes) if _is_open(value) else value.dtype
        shape = tuple(extent if known is None else known for known in value.shape)
        return keras.KerasTensor(shape, dtype=dtype)

    return settled


def _from_shapes(shapes: Any) -> Any:
    """Replace every shape in a structure by a symbolic tensor."""
    if isinstance(shapes, dict):
        return {name: _from_shapes(shape) for name, shape in shapes.items()}
    if all(extent is None or isinstance(extent, int) for extent in shapes):
        return keras.KerasTensor(tuple(shapes), dtype="float32", name=UNKNOWN_DTYPE)
    # Keras may hand out a list class of its own, which JAX does not look into.
    kind = tuple if isinstance(shapes, tuple) else list
    return kind(_from_shapes(shape) for shape in shapes)
