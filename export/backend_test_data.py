"""Test data in the layout of the ONNX backend tests, for authors of runtimes.

    NAME/model.onnx
    NAME/test_data_set_0/input_0.pb ... output_0.pb ...

Source: onnx/onnx, docs/OnnxBackendTest.md.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from keras_muon.export.probes import probes
from keras_muon.export.result_checks import by_reference
from keras_muon.export.specification import specification_of
from keras_muon.export.target import TEST_DATA, TEST_MODEL


def write_test_data(folder: Path, content: bytes) -> None:
    """Write a model, inputs, and the outputs of the standard's own evaluator.

    Args:
        folder: Where to; it is made.
        content: The bytes of a graph of this package.
    """
    model = onnx.load_model_from_string(content)
    folder.mkdir()
    (folder / TEST_MODEL).write_bytes(content)
    for number, inputs in enumerate(probes(model, specification_of(model))):
        data_set = folder / f"{TEST_DATA}{number}"
        data_set.mkdir()
        _write(data_set, "input", model.graph.input, inputs.values())
        _write(data_set, "output", model.graph.output, by_reference(model, inputs))


def _write(
    data_set: Path,
    role: str,
    ports: Iterable[onnx.ValueInfoProto],
    arrays: Iterable[np.ndarray],
) -> None:
    for number, (port, array) in enumerate(zip(ports, arrays, strict=True)):
        tensor = numpy_helper.from_array(np.asarray(array), port.name)
        (data_set / f"{role}_{number}.pb").write_bytes(tensor.SerializeToString())
