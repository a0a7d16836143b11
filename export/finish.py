"""From nodes to a model: metadata, versions, and the checks that every graph passes."""

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
    check(model)
    return model


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
