"""Run a graph on arrays."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from keras_muon.export.arrays import as_array, as_number
from keras_muon.export.extras import require_onnxruntime
from keras_muon.export.finish import serialized
from keras_muon.export.reading import read_model
from keras_muon.export.sessions import Session, session_for

# What ONNX Runtime calls the dtypes of arrays.
DTYPES = {
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
}


def run(
    model: onnx.ModelProto | str | os.PathLike[str],
    *arrays: Any,
    device: str = "auto",
    tf32: bool = False,
    threads: int | None = None,
) -> Any:
    """Run a graph on ONNX Runtime.

    Args:
        model: A model, or the path of an ONNX file.
        *arrays: One per input, in the order of the graph. Arrays in the input's dtype;
            plain numbers for scalars; or `onnxruntime.OrtValue`s, which stay on their
            device.
        device: `"cpu"`, `"cuda"`, or `"auto"` for CUDA where there is a device.
        tf32: Whether CUDA may round the factors of float32 products to 10 bits.
        threads: Threads of a CPU. None takes all that this process may use.

    Returns:
        The output, or a tuple if the graph has several. Arrays, or `OrtValue`s if
        there is one among `arrays`.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If ONNX Runtime is not installed.
        RuntimeError: If `device` is `"cuda"` and ONNX Runtime would use the CPU.
        ValueError: If the file is no ONNX model, or the arrays do not fit its inputs.

    Example:
        >>> import numpy as np
        >>> from keras_muon.export.newton_schulz_graph import newton_schulz
        >>> update = np.diag([3.0, 0.3]).astype("float32")
        >>> polar = run(newton_schulz((2, 2), schedule="quintic"), update)
        >>> bool(abs(polar - np.eye(2)).max() < 1e-6)
        True
    """
    session = session_for(content_of(model), device=device, tf32=tf32, threads=threads)
    ort_value = require_onnxruntime().OrtValue
    given = _checked(session, arrays, ort_value)
    on_device = [value for value in given.values() if isinstance(value, ort_value)]
    if on_device:
        results = _run_bound(session, given, on_device[0].device_name())
    else:
        results = session.run(None, given)
    return results[0] if len(results) == 1 else tuple(results)


def content_of(model: onnx.ModelProto | str | os.PathLike[str]) -> bytes:
    """Return the bytes of a model, or of a file that holds one.

    Args:
        model: A model, or the path of an ONNX file.

    Returns:
        The bytes.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If `model` is neither.
        ValueError: If the file is no ONNX model, truncated, damaged or empty.
    """
    if isinstance(model, onnx.ModelProto):
        return serialized(model)
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(
            "`model` must be an onnx.ModelProto or the path of a file; received "
            f"{type(model).__name__}."
        )
    read, content = read_model(model)
    if not read.graph.node:
        raise ValueError(f"{str(model)!r} is an ONNX model without a node.")
    return content


def _checked(session: Session, arrays: Sequence[Any], ort_value: Any) -> dict[str, Any]:
    """The inputs by name, each of the right dtype and shape."""
    inputs = session.get_inputs()
    if len(arrays) != len(inputs):
        names = ", ".join(repr(entry.name) for entry in inputs)
        raise ValueError(
            f"The graph's inputs are: {names}. Pass an array for each, in this order; "
            f"received {len(arrays)}."
        )
    extents: dict[str, int] = {}
    given = {}
    for entry, array in zip(inputs, arrays, strict=True):
        on_device = isinstance(array, ort_value)
        if not on_device:
            array = _as_array(entry, array)
        elif array.data_type() != entry.type:
            raise _wrong_dtype(entry, DTYPES.get(array.data_type(), array.data_type()))
        shape = tuple(array.shape() if on_device else array.shape)
        _check_shape(entry, shape, extents)
        given[entry.name] = array
    return given


def _as_array(entry: Any, array: Any) -> np.ndarray:
    wanted = DTYPES.get(entry.type)
    if wanted is None:
        raise ValueError(
            f"Input {entry.name!r} is a {entry.type}, as no graph of this package "
            "has. Feed it to an onnxruntime.InferenceSession."
        )
    if isinstance(array, np.integer):
        array = array.item()
    if isinstance(array, (int, float)):
        array = _as_scalar(entry, array, wanted)
    array = as_array(f"Input {entry.name!r}", array)
    if array.dtype.newbyteorder("=") == wanted:
        array = array.astype(wanted, copy=False)
    if array.dtype != wanted:
        raise _wrong_dtype(entry, array.dtype)
    return array


def _as_scalar(entry: Any, number: float, wanted: str) -> np.ndarray:
    """A plain number in the input's dtype, if it is one there."""
    if wanted == "int64":
        try:
            whole = int(number)
            if whole == number:
                return np.asarray(whole, wanted)
        except (ValueError, OverflowError):
            pass
        raise ValueError(
            f"Input {entry.name!r} must be a whole number of 64 bits; received "
            f"{number!r}."
        )
    return as_number(f"Input {entry.name!r}", number, wanted)


def _wrong_dtype(entry: Any, received: object) -> ValueError:
    wanted = DTYPES.get(entry.type, entry.type)
    other = "" if wanted == "int64" else ", or export the graph with another `dtype`"
    return ValueError(
        f"Input {entry.name!r} has dtype {wanted}; received {received}. Cast it "
        f"(array.astype({wanted!r})){other}."
    )


def _check_shape(entry: Any, shape: tuple[int, ...], extents: dict[str, int]) -> None:
    """Refuse a shape that is not the input's; names must mean one extent throughout."""
    if len(shape) == len(entry.shape):
        for wanted, got in zip(entry.shape, shape, strict=True):
            if isinstance(wanted, str):
                extents.setdefault(wanted, got)
    known = tuple(extents.get(extent, extent) for extent in entry.shape)
    if shape != known:
        raise ValueError(
            f"Input {entry.name!r} has shape ({', '.join(map(str, known))}); received "
            f"{shape}. Pass that shape, or export a graph for yours."
        )


def _run_bound(session: Session, given: dict[str, Any], device: str) -> Sequence[Any]:
    binding = session.io_binding()
    for name, value in given.items():
        if isinstance(value, np.ndarray):
            binding.bind_cpu_input(name, value)
        else:
            binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, device)
    session.run_with_iobinding(binding)
    return binding.get_outputs()
