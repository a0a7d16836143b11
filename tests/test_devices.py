"""Where bfloat16 is fast, and sums are rounded once."""

from types import SimpleNamespace

import keras
import pytest
import torch

from keras_muon import devices

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

ACCELERATOR = {
    True: "the device has units for it",
    False: "the device has no units for it",
}
FAST_VECTORS = (True, "the CPU has instructions for it (AVX-512)")
UNITS = (True, "the CPU has units for it (AMX)")
HIDDEN = (False, "the CPU's units for it (AMX) are hidden")
NONE_KNOWN = (False, "no fast instructions of the CPU are known")
BY_XLA = (False, "XLA converts it for each product on a CPU")
BY_XLA_PERHAPS = (
    False,
    "XLA may compile the steps, and converts it for each product on a CPU",
)
NO_ONEDNN = (False, "TensorFlow needs oneDNN for it")


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
        (VECTORS, FAST_VECTORS),
        ({"avx512_bf16": False, "amx_bf16": True}, UNITS),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, NONE_KNOWN),
        ({"neon": True}, NONE_KNOWN),
        ({**VECTORS, "avx512_fp16": True, "cpu_name": "Intel Xeon"}, HIDDEN),
        ({**VECTORS, "avx512_fp16": False, "cpu_name": "Intel Xeon"}, FAST_VECTORS),
        ({**VECTORS, "avx512_fp16": True, "cpu_name": "AMD Zen 6"}, FAST_VECTORS),
        ({"amx_bf16": True, "avx512_fp16": True, "cpu_name": "Intel Xeon"}, UNITS),
    ],
    ids=str,
)
def test_torch_follows_the_instructions_of_the_cpu(monkeypatch, capabilities, expected):
    """Either kind of bfloat16 instructions is enough, unless it is the slow one."""
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: capabilities, raising=False
    )
    assert devices.products_of_bfloat16() == expected


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
    assert devices.products_of_bfloat16() == (expected, ACCELERATOR[expected])


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
    assert devices.products_of_bfloat16() == BY_XLA
    assert devices.products_of_bfloat16(xla=False) == BY_XLA
    assert devices.multiplies_bfloat16() is False


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
    assert devices.products_of_bfloat16() == (expected, ACCELERATOR[expected])


@on_tensorflow
@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("flags", "xla", "onednn", "expected"),
    [
        ("avx512_bf16 sse", False, "1", FAST_VECTORS),
        ("amx_bf16", False, "1", UNITS),
        ("avx512f avx2", False, "1", NONE_KNOWN),
        ("", False, "1", NONE_KNOWN),
        ("GenuineIntel avx512_bf16 avx512_fp16", False, "1", HIDDEN),
        ("GenuineIntel avx512_bf16", False, "1", FAST_VECTORS),
        ("GenuineIntel avx512_bf16 avx512_fp16 amx_bf16", False, "1", UNITS),
        ("AuthenticAMD avx512_bf16 avx512_fp16", False, "1", FAST_VECTORS),
        ("avx512_bf16", True, "1", BY_XLA_PERHAPS),
        ("avx512_bf16", False, "0", NO_ONEDNN),
    ],
    ids=str,
)
def test_tensorflow_without_xla_follows_the_cpu(
    monkeypatch, flags, xla, onednn, expected
):
    """XLA converts each time, and without oneDNN nothing is fast."""
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    monkeypatch.setattr(devices, "cpu_features", lambda: frozenset(flags.split()))
    assert devices.products_of_bfloat16(xla=xla) == expected


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
    assert devices.products_of_bfloat16() == (expected, ACCELERATOR[expected])


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
