"""From nodes to a model: metadata, versions, and the checks that every graph passes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import onnx
from onnx import helper

from keras_muon.export.arguments import Extent
from keras_muon.export.graph_writer import GraphWriter, Value, element_type
from keras_muon.version import __version__

PRODUCER = "keras_muon"

# The key in metadata_props under which a graph carries its specification.
SPECIFICATION_KEY = "keras_muon.spec"

# The key of the digest of all else. A specification may hold words that change no node,
# such as the source of a schedule; by the digest a changed letter is seen there too.
DIGEST_KEY = "keras_muon.sha256"


class Port(NamedTuple):
    """An input or output of a graph.

    Args:
        value: What goes in or comes out, under its name.
        extents: Its shape; a string names an unknown extent.
    """

    value: Value
    extents: Sequence[Extent]


def finish(
    writer: GraphWriter,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    *,
    name: str,
    opset: int,
    doc_string: str,
    specification: Mapping[str, Any],
) -> onnx.ModelProto:
    """Return the model of what was recorded, after checking it.

    Args:
        writer: Holds nodes and constants.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        name: The graph's name.
        opset: Version of the standard operators.
        doc_string: The formula, for readers.
        specification: Plain values from which `rebuild` makes the same model.

    Returns:
        The model, with the lowest IR version that has the opset.

    Raises:
        onnx.checker.ValidationError: If the graph breaks the standard.
        onnx.shape_inference.InferenceError: If a shape or dtype contradicts another.
    """
    graph = helper.make_graph(
        writer.nodes,
        name,
        [_value_info(port) for port in inputs],
        [_value_info(port) for port in outputs],
        initializer=list(writer.constants.values()),
        doc_string=doc_string,
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name=PRODUCER,
        producer_version=__version__,
    )
    text = json.dumps(dict(specification), sort_keys=True, allow_nan=False)
    helper.set_model_props(model, {SPECIFICATION_KEY: text})
    seal(model)
    check(model)
    return model


def seal(model: onnx.ModelProto) -> None:
    """Write the SHA-256 of all else in a model into its metadata."""
    digest = _digest(model)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, properties | {DIGEST_KEY: digest})


def is_as_sealed(model: onnx.ModelProto) -> bool | None:
    """Whether a model is what it was when it was sealed; None if it never was.

    Args:
        model: The model.

    Returns:
        False if anything differs, be it a word that no node depends on.

    Example:
        >>> from keras_muon.export import newton_schulz
        >>> model = newton_schulz((8, 4))
        >>> model.doc_string = "mine"
        >>> is_as_sealed(model)
        False
    """
    found = [e.value for e in model.metadata_props if e.key == DIGEST_KEY]
    return found == [_digest(model)] if found else None


def _digest(model: onnx.ModelProto) -> str:
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    others = [entry for entry in model.metadata_props if entry.key != DIGEST_KEY]
    del rest.metadata_props[:]
    rest.metadata_props.extend(others)
    return hashlib.sha256(serialized(rest)).hexdigest()


def check(model: onnx.ModelProto) -> None:
    """Raise if a model breaks the standard, or its shapes contradict each other."""
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True
    )


def serialized(model: onnx.ModelProto) -> bytes:
    """Return the bytes of a model; equal models have equal bytes.

    Args:
        model: The model.

    Returns:
        What a file of it holds.

    Raises:
        google.protobuf.message.EncodeError: If it exceeds 2 GiB.

    Example:
        >>> from keras_muon.export import newton_schulz
        >>> serialized(newton_schulz((8, 4))) == serialized(newton_schulz((8, 4)))
        True
    """
    return model.SerializeToString(deterministic=True)


def _value_info(port: Port) -> onnx.ValueInfoProto:
    dtype = element_type(port.value.dtype)
    return helper.make_tensor_value_info(port.value.name, dtype, list(port.extents))
