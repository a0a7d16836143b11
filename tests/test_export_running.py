"""run(): what it accepts, what it refuses, and that it keeps its digits."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from oracle import polar_by_svd

from keras_muon import SCHEDULES
from keras_muon.export import adamw_step, newton_schulz, run, serialized
from keras_muon.export.sessions import chosen_device

MODEL = newton_schulz((4, 6))
STACK = newton_schulz((4, 6), batch="k")
ADAMW = adamw_step((3,))


@pytest.fixture
def x(rng):
    return rng.standard_normal((4, 6)).astype("float32")


def cpu(model, *arrays):
    return run(model, *arrays, device="cpu", threads=1)


def test_models_and_paths_give_the_same(x, tmp_path):
    path = tmp_path / "graph.onnx"
    path.write_bytes(serialized(MODEL))
    expected = cpu(MODEL, x)
    assert expected.shape == (4, 6)
    for model in (path, str(path)):
        np.testing.assert_array_equal(cpu(model, x), expected)


def test_strided_arrays_and_lists_of_numbers(x):
    expected = cpu(MODEL, x)
    np.testing.assert_array_equal(cpu(MODEL, np.asfortranarray(x)), expected)
    ones = np.ones(3, "float32")
    scalars = (0.1, np.float32(0.01).reshape(()), 1)
    parameter, momentum, velocity = cpu(ADAMW, ones, ones, ones, ones, *scalars)
    assert parameter.shape == momentum.shape == velocity.shape == (3,)


def test_values_on_a_device_stay_there(x):
    """An OrtValue comes in, an OrtValue goes out; arrays beside it are allowed."""
    value = onnxruntime.OrtValue.ortvalue_from_numpy(x)
    result = cpu(MODEL, value)
    assert isinstance(result, onnxruntime.OrtValue)
    np.testing.assert_array_equal(result.numpy(), cpu(MODEL, x))
    ones = np.ones(3, "float32")
    held = onnxruntime.OrtValue.ortvalue_from_numpy(ones)
    results = cpu(ADAMW, held, ones, held, ones, 0.1, 0.01, 1)
    expected = cpu(ADAMW, ones, ones, ones, ones, 0.1, 0.01, 1)
    for result, array in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.numpy(), array)


DOUBLE = np.ones((4, 6))


REFUSED = {
    "none": (MODEL, [], r"inputs are: 'update'. .*; received 0"),
    "two": (MODEL, [DOUBLE, DOUBLE], r"received 2\."),
    "dtype": (MODEL, [DOUBLE], "dtype float32; received float64. Cast it"),
    "shape": (MODEL, [DOUBLE.T.astype("f4")], r"shape \(4, 6\); received \(6, 4\)"),
    "rank": (STACK, [DOUBLE.astype("f4")], r"shape \(k, 4, 6\); received \(4, 6\)"),
    "value": (
        MODEL,
        [onnxruntime.OrtValue.ortvalue_from_numpy(DOUBLE)],
        "dtype float32; received float64",
    ),
    "names": (
        newton_schulz(("m", "m"), dynamic=True),
        [DOUBLE.astype("f4")],
        r"shape \(4, 4\); received \(4, 6\)",
    ),
    "half": (ADAMW, [np.ones(3, "float16")] * 4 + [1, 1, 1], "received float16"),
    "count": (ADAMW, [np.ones(3, "f4")] * 4 + [1, 1, np.ones(())], "dtype int64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arrays_are_refused(name):
    model, arrays, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        cpu(model, *arrays)


def test_wrong_models_are_refused(x, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*missing\.onnx"):
        cpu(tmp_path / "missing.onnx", x)
    with pytest.raises(FileNotFoundError, match="is a folder"):
        cpu(tmp_path, x)
    with pytest.raises(TypeError, match=r"onnx\.ModelProto or the path.*received int"):
        cpu(3, x)
    whole = serialized(newton_schulz(x.shape))
    for content, reason in (
        (b"", "is empty"),
        (b"not an ONNX file", "is no ONNX model"),
        (b"\x08\x08", "is the beginning of an ONNX file"),
        (whole[:500], "is the beginning of an ONNX file"),
    ):
        path = tmp_path / "broken.onnx"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"broken\.onnx' {reason}"):
            cpu(path, x)


def test_what_numpy_cannot_read_is_refused(x):
    """It has no bfloat16, and no gradients."""
    model = newton_schulz(x.shape)
    for tensor in (torch.from_numpy(x).bfloat16(), torch.ones(8, requires_grad=True)):
        with pytest.raises(TypeError, match=r"'update' cannot be read .*\.detach\(\)"):
            cpu(model, tensor)


def test_inputs_that_no_graph_of_ours_has_are_refused():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 18]>
        g (int32[2] x) => (int32[2] y) { y = Identity(x) }"""
    )
    with pytest.raises(ValueError, match=r"'x' is a tensor\(int32\), as no graph"):
        cpu(model, np.ones(2, "int32"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"device": "gpu"}, ValueError, "Known: 'auto', 'cpu', 'cuda'"),
        ({"tf32": 1}, TypeError, "`tf32` must be True or False"),
        ({"threads": 0}, ValueError, "`threads` must be at least 1"),
        (
            {"threads": 1025},
            ValueError,
            "`threads` must be at most 1024; received 1025",
        ),
    ],
)
def test_wrong_options_are_refused(x, arguments, error, message):
    with pytest.raises(error, match=message):
        run(MODEL, x, **arguments)


@pytest.mark.parametrize("batch", [None, 2])
def test_float64_keeps_its_factors(rng, batch):
    """In a session of anybody's, too: its fusions must find no factor to round."""
    x = rng.standard_normal((16, 24) if batch is None else (batch, 16, 24))
    model = newton_schulz((16, 24), batch=batch, dtype="float64")
    plain = onnxruntime.InferenceSession(
        serialized(model), providers=["CPUExecutionProvider"]
    )
    triples = SCHEDULES["jordan"].take()
    expected = polar_by_svd(x, triples)
    for result in (*plain.run(None, {"update": x}), cpu(model, x)):
        assert np.abs(result - expected).max() < 1e-13
    rounded = polar_by_svd(x, np.float32(triples).astype("float64"))
    assert np.abs(rounded - expected).max() > 1e-8


def test_the_installed_runtime_never_pretends_to_be_cuda(x):
    """On a machine with CUDA this runs there; elsewhere it is an error."""
    if chosen_device("auto") == "cuda":
        np.testing.assert_allclose(run(MODEL, x, device="cuda"), cpu(MODEL, x), 0, 2e-6)
    else:
        with pytest.raises(RuntimeError, match="`device` is 'cuda'"):
            run(MODEL, x, device="cuda")


@pytest.mark.parametrize("number", [1.5, float("nan"), float("inf"), 1e400, 10**30])
def test_a_count_is_a_whole_number(number):
    """Neither cut off nor wrapped around."""
    ones = np.ones(3, "float32")
    with pytest.raises(ValueError, match="'step' must be a whole number of 64 bits"):
        cpu(adamw_step((3,)), *[ones] * 4, 1e-3, 0.0, number)
