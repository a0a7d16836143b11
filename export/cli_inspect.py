"""`keras-muon inspect`: what is in a file, and what a run of it costs."""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import onnx

from keras_muon.export.arguments import LARGEST_EXTENT
from keras_muon.export.check_row import one_line
from keras_muon.export.cost import cost, nodes_of, open_extents
from keras_muon.export.finish import is_as_sealed
from keras_muon.export.reading import read_model
from keras_muon.export.report import print_facts
from keras_muon.export.specification import specification_of

Facts = dict[str, Any]

AS_EXPORTED = {
    True: "yes",
    False: "no, it was changed since: keras-muon verify tells where",
    None: "unknown",
}


def command(arguments: argparse.Namespace) -> bool:
    """Print what is in a file.

    Args:
        arguments: As parsed.

    Returns:
        True.
    """
    model, content = read_model(arguments.file)
    extents = _extents(arguments.extent)
    _refuse_unknown_extents(model, extents)
    facts = _facts(model, content, extents)
    if arguments.json:
        print(json.dumps({"file": arguments.file, **facts}, indent=2))
    else:
        print_facts(
            f"{arguments.file}, {len(content):,} bytes", _rows(facts), sys.stdout
        )
    return True


def _extents(texts: Iterable[str]) -> dict[str, int]:
    extents: dict[str, int] = {}
    for text in texts:
        name, value = _binding(text)
        if name in extents:
            raise ValueError(
                f"`extent` must give each name one value; received {name!r} twice, as "
                f"{extents[name]} and {value}. Leave one out."
            )
        extents[name] = value
    return extents


def _binding(text: str) -> tuple[str, int]:
    """The name and value of an open extent, written `m=768`."""
    name, _, value = text.partition("=")
    # No more digits than the largest has: Python refuses to read thousands of them.
    digits = re.fullmatch(rf"0*([1-9][0-9]{{,{len(str(LARGEST_EXTENT)) - 1}}})", value)
    if not name or not digits or int(digits[1]) > LARGEST_EXTENT:
        raise ValueError(
            f"`extent` must be a name and a whole number from 1 to {LARGEST_EXTENT}, "
            f"such as m=768; received {text!r}."
        )
    return name, int(digits[1])


def _refuse_unknown_extents(model: onnx.ModelProto, extents: dict[str, int]) -> None:
    known = open_extents(model)
    unknown = [name for name in extents if name not in known]
    if unknown:
        raise ValueError(
            f"The graph leaves no extent {unknown[0]!r} open. Open: {known}."
        )


def _facts(model: onnx.ModelProto, content: bytes, extents: dict[str, int]) -> Facts:
    operators = Counter(node.op_type for node in nodes_of(model.graph))
    return {
        "bytes": len(content),
        "as_exported": is_as_sealed(model),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "ir_version": model.ir_version,
        "opsets": {entry.domain: entry.version for entry in model.opset_import},
        "inputs": [_port(value) for value in model.graph.input],
        "outputs": [_port(value) for value in model.graph.output],
        "operators": dict(sorted(operators.items())),
        "specification": _specification(model),
        "cost": _cost(model, extents),
    }


def _port(value: onnx.ValueInfoProto) -> Facts:
    tensor = value.type.tensor_type
    shape = [
        d.dim_value if d.HasField("dim_value") else d.dim_param
        for d in tensor.shape.dim
    ]
    return {"name": value.name, "dtype": _dtype(tensor.elem_type), "shape": shape}


def _dtype(element_type: int) -> str:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(element_type).name
    except KeyError:
        return f"unknown element type {element_type}"


def _specification(model: onnx.ModelProto) -> Any:
    try:
        return specification_of(model)
    except ValueError as error:
        return {"missing": one_line(error)}


def _cost(model: onnx.ModelProto, extents: dict[str, int]) -> Facts:
    try:
        counted = cost(model, extents)
    # Files of others hold what may break the inference of shapes; the rest is shown.
    except Exception as error:
        missing = set(open_extents(model)) - extents.keys()
        hint = " Write --extent NAME=N." if missing else ""
        # A KeyError is nothing but what was looked for, such as an element type.
        rest = " is not known." if isinstance(error, KeyError) else ""
        return {"unknown": one_line(error) + rest + hint}
    facts = counted._asdict()
    # A graph without nodes moves nothing.
    if counted.bytes_moved:
        facts["flops_per_byte"] = round(counted.flops / counted.bytes_moved, 2)
    return facts


def _rows(facts: Facts) -> Iterator[tuple[str, str, str]]:
    yield "model", "producer", facts["producer"] or "unknown"
    yield "model", "as exported", AS_EXPORTED[facts["as_exported"]]
    yield "model", "IR version", str(facts["ir_version"])
    for domain, version in facts["opsets"].items():
        yield "model", f"opset {domain}".strip(), str(version)
    for topic in ("inputs", "outputs"):
        for port in facts[topic]:
            shape = " x ".join(map(str, port["shape"])) or "scalar"
            yield topic, port["name"], f"{port['dtype']}, {shape}"
    for operator, count in facts["operators"].items():
        yield "operators", operator, str(count)
    yield from _plain_rows("specification", facts["specification"].items())
    yield from _plain_rows("per run", facts["cost"].items())


def _plain_rows(
    topic: str, items: Iterable[tuple[str, Any]]
) -> Iterator[tuple[str, str, str]]:
    for name, value in items:
        if isinstance(value, dict):
            yield from _plain_rows(
                topic, ((f"{name}.{k}", v) for k, v in value.items())
            )
        else:
            number = isinstance(value, int) and not isinstance(value, bool)
            yield topic, name.replace("_", " "), f"{value:,}" if number else str(value)
