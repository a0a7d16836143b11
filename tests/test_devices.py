"""Where bfloat16 is fast, what `compute_dtype="auto"` makes of it, what it costs."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import torch
from keras import ops

from keras_muon import SCHEDULES, devices, orthogonalize, planning

on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="torch's way to tell"
)
on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="JAX's way to tell"
)
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's way to tell"
)

VECTORS = {"avx512_bf16": True, "amx_bf16": False}


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(devices, "runs_on_accelerator", lambda: False)


@pytest.fixture
def on_accelerator(monkeypatch):
    monkeypatch.setattr(devices, "runs_on_accelerator", lambda: True)


@on_torch
@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (VECTORS, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, False),
        ({"neon": True}, False),
        ({**VECTORS, "avx512_fp16": True, "cpu_name": "Intel Xeon"}, False),
        ({**VECTORS, "avx512_fp16": False, "cpu_name": "Intel Xeon"}, True),
        ({**VECTORS, "avx512_fp16": True, "cpu_name": "AMD Zen 6"}, True),
        ({"amx_bf16": True, "avx512_fp16": True, "cpu_name": "Intel Xeon"}, True),
    ],
    ids=str,
)
def test_torch_follows_the_instructions_of_the_cpu(monkeypatch, capabilities, expected):
    """Either kind of bfloat16 instructions is enough, unless it is the slow one."""
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: capabilities, raising=False
    )
    assert devices.multiplies_bfloat16() is expected


@on_torch
@pytest.mark.usefixtures("on_cpu")
def test_torch_without_a_way_to_tell_stays_in_float32(monkeypatch):
    """Before 2.12 nothing public tells it."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert devices.multiplies_bfloat16() is False


@on_torch
@pytest.mark.usefixtures("on_accelerator")
@pytest.mark.parametrize(
    ("cuda", "native", "expected"),
    [(True, True, True), (True, False, False), (False, False, True)],
)
def test_torch_asks_a_gpu_for_native_bfloat16(monkeypatch, cuda, native, expected):
    """Emulated products do not count; other accelerators have native ones."""

    def supported(including_emulation=True):
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert devices.multiplies_bfloat16() is expected


@pytest.mark.parametrize("accelerator", [False, True])
def test_sums_are_rounded_once_on_torch_on_cpus(monkeypatch, backend, accelerator):
    """On CUDA parts of sums may be rounded; Metal may multiply first and add then."""
    monkeypatch.setattr(devices, "runs_on_accelerator", lambda: accelerator)
    assert devices.rounds_sums_once() is (backend == "torch" and not accelerator)


@on_jax
@pytest.mark.usefixtures("on_cpu")
def test_xla_on_a_cpu_does_not_multiply_bfloat16(monkeypatch):
    """Whatever instructions the CPU has."""
    monkeypatch.setattr(devices, "cpu_features", lambda: frozenset({"avx512_bf16"}))
    assert devices.multiplies_bfloat16() is False
    assert devices.multiplies_bfloat16(xla=False) is False


@on_jax
@pytest.mark.usefixtures("on_accelerator")
@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (SimpleNamespace(compute_capability="9.0"), True),
        (SimpleNamespace(compute_capability="8.0"), True),
        (SimpleNamespace(compute_capability="7.5"), False),
        (SimpleNamespace(compute_capability="12.0"), True),
        (SimpleNamespace(compute_capability="gfx942"), True),
        (SimpleNamespace(), True),
    ],
    ids=str,
)
def test_jax_asks_an_accelerator(monkeypatch, device, expected):
    """CUDA from 8.0 on; what has no such number, as TPUs, has native units."""
    import jax

    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert devices.multiplies_bfloat16() is expected


@on_tensorflow
@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("flags", "xla", "onednn", "expected"),
    [
        ("avx512_bf16 sse", False, "1", True),
        ("amx_bf16", False, "1", True),
        ("avx512f avx2", False, "1", False),
        ("", False, "1", False),
        ("GenuineIntel avx512_bf16 avx512_fp16", False, "1", False),
        ("GenuineIntel avx512_bf16", False, "1", True),
        ("GenuineIntel avx512_bf16 avx512_fp16 amx_bf16", False, "1", True),
        ("AuthenticAMD avx512_bf16 avx512_fp16", False, "1", True),
        ("avx512_bf16", True, "1", False),
        ("avx512_bf16", False, "0", False),
    ],
    ids=str,
)
def test_tensorflow_without_xla_follows_the_cpu(
    monkeypatch, flags, xla, onednn, expected
):
    """XLA converts each time, and without oneDNN nothing is fast."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    monkeypatch.setattr(devices, "cpu_features", lambda: frozenset(flags.split()))
    assert devices.multiplies_bfloat16(xla=xla) is expected


@on_tensorflow
@pytest.mark.usefixtures("on_accelerator")
@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ([{"compute_capability": (9, 0)}], True),
        ([{"compute_capability": (7, 5)}], False),
        ([{"compute_capability": (9, 0)}, {"compute_capability": (7, 0)}], False),
        ([{}], True),
        ([], True),
    ],
    ids=str,
)
def test_tensorflow_asks_an_accelerator(monkeypatch, details, expected):
    """CUDA from 8.0 on, on all devices; others, as TPUs, have native units."""
    import tensorflow as tf

    config = tf.config
    monkeypatch.setattr(config, "list_physical_devices", lambda _: range(len(details)))
    monkeypatch.setattr(config.experimental, "get_device_details", details.__getitem__)
    assert devices.multiplies_bfloat16() is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "processor: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx512_bf16\n\n"
            "processor: 1\nflags\t\t: other\n",
            ["GenuineIntel", "fpu", "avx512_bf16"],
        ),
        ("processor: 0\nflags: fpu\nbugs: x\n", ["fpu"]),
        ("processor: 0\nFeatures: fp asimd\n", []),
        (None, []),
    ],
)
def test_linux_lists_instruction_sets(monkeypatch, text, expected):
    """With the vendor, of the first core; other processors and systems list none."""

    def read(path, encoding):
        assert str(path) == "/proc/cpuinfo"
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(devices.Path, "read_text", read)
    assert devices.cpu_features() == set(expected)


@pytest.mark.parametrize(
    ("shape", "wide", "asked", "expected"),
    [
        ((256, 300), "float32", "auto", "bfloat16"),
        ((4, 300, 256), "float32", "auto", "bfloat16"),
        ((4, 64, 100), "float32", "auto", "bfloat16"),
        ((4, 63, 100), "float32", "auto", "float32"),
        ((255, 300), "float32", "auto", "float32"),
        ((300, 8), "float32", "auto", "float32"),
        ((256, 300), "float64", "auto", "float64"),
        ((256, 300), "float32", "float32", "float32"),
        ((8, 8), "float32", "bfloat16", "bfloat16"),
    ],
    ids=str,
)
def test_auto_is_bfloat16_on_large_matrices(monkeypatch, shape, wide, asked, expected):
    """Where it is fast from 256 rows on, 64 in a stack; what is asked for stays."""
    schedule = SCHEDULES["auto"]
    monkeypatch.setattr(planning, "multiplies_bfloat16", lambda **_: True)
    plan = planning.planned(shape, schedule, None, wide, asked)
    assert plan.compute_dtype == expected
    monkeypatch.setattr(planning, "multiplies_bfloat16", lambda **_: False)
    plan = planning.planned(shape, schedule, None, wide, asked)
    assert plan.compute_dtype == (wide if asked == "auto" else asked)


def test_tests_are_computed_in_float32():
    """The fixture of all tests, which keeps their tolerances valid everywhere."""
    assert planning.multiplies_bfloat16() is False


@pytest.mark.machine_dtype
def test_a_marked_test_sees_the_machine():
    """`machine_dtype` leaves the choice as it is outside of tests."""
    assert planning.multiplies_bfloat16 is devices.multiplies_bfloat16


def like_an_update(rng, shape):
    """Twenty directions, the first 17 times as large as what lies beside them."""
    fan_in, fan_out = shape
    left = rng.standard_normal((fan_in, 20)) * np.geomspace(0.6, 0.1, 20)
    noise = rng.standard_normal(shape)
    return (left @ rng.standard_normal((20, fan_out)) + noise).astype("float32")


@pytest.mark.parametrize("shape", [(384, 400), (400, 384)], ids=str)
@pytest.mark.parametrize("schedule", ["auto", "you"])
def test_bfloat16_is_close_to_float32(rng, shape, schedule):
    """Relative, in the whole matrix; XLA rounds more often than torch's fused kernels.

    Seen up to 0.020 on torch and 0.054 elsewhere; matrices without compression 0.021.
    """
    x = like_an_update(rng, shape)
    narrow, wide = (
        ops.convert_to_numpy(orthogonalize(x, schedule, compute_dtype=dtype))
        for dtype in ("bfloat16", "float32")
    )
    error = np.linalg.norm(narrow - wide) / np.linalg.norm(wide)
    assert 1e-3 < error < (0.03 if keras.backend.backend() == "torch" else 0.07)
