"""Sessions: which device they are on, what is kept, and what is missing."""

import importlib.metadata
import os
import sys
from types import SimpleNamespace

import onnxruntime
import pytest

from keras_muon.export import extras, newton_schulz, serialized
from keras_muon.export import sessions as sessions_module
from keras_muon.export.sessions import chosen_device, session_for, usable_cpus

MODEL = newton_schulz((4, 6))
STACK = newton_schulz((4, 6), batch="k")


def test_sessions_are_kept_by_content_device_and_threads():
    content = serialized(MODEL)
    copy = bytes(bytearray(content))
    first = session_for(content, device="cpu", threads=1)
    assert session_for(copy, device="cpu", threads=1) is first
    assert session_for(content, device="cpu", threads=2) is not first
    other = serialized(newton_schulz((4, 6), steps=4))
    assert session_for(other, device="cpu", threads=1) is not first


def test_sessions_do_not_spin_and_know_their_threads():
    session = session_for(serialized(MODEL), device="cpu", threads=3)
    options = session.get_session_options()
    assert options.intra_op_num_threads == 3
    entry = options.get_session_config_entry
    assert entry("session.intra_op.allow_spinning") == "0"
    assert 1 <= usable_cpus() <= os.cpu_count()


class FakeRuntime(SimpleNamespace):
    """What `sessions` asks of onnxruntime, on a machine of our choice."""

    def __init__(self, *, devices=(), falls_back=False, knows_cuda=True):
        super().__init__()
        self.devices, self.falls_back, self.knows_cuda = devices, falls_back, knows_cuda
        self.loaded = 0
        self.SessionOptions = onnxruntime.SessionOptions

    def __hash__(self):
        return id(self)

    def get_ep_devices(self):
        return [SimpleNamespace(ep_name=name) for name in self.devices]

    def get_available_providers(self):
        known = ["CUDAExecutionProvider"] if self.knows_cuda else []
        return [*known, "CPUExecutionProvider"]

    def preload_dlls(self):
        self.loaded += 1
        print("Skip loading CUDA and cuDNN DLLs")

    def InferenceSession(self, content, options, providers, disabled_optimizers):  # noqa: N802
        used = providers[1:] if self.falls_back else providers
        names = [name if isinstance(name, str) else name[0] for name in used]
        return SimpleNamespace(
            asked=providers, off=disabled_optimizers, get_providers=lambda: names
        )


@pytest.fixture
def machine(monkeypatch):
    def install(**arguments):
        runtime = FakeRuntime(**arguments)
        monkeypatch.setattr(sessions_module, "require_onnxruntime", lambda: runtime)
        return runtime

    return install


def test_auto_looks_for_a_device(machine):
    """A wheel that was built for CUDA lists CUDA on every machine; devices do not."""
    machine(devices=["CPUExecutionProvider"])
    assert chosen_device("auto") == "cpu"
    machine(devices=["CPUExecutionProvider", "CUDAExecutionProvider"])
    assert chosen_device("auto") == "cuda"
    assert chosen_device("cpu") == "cpu"


@pytest.mark.parametrize("tf32", [False, True])
def test_cuda_gets_its_options_and_libraries_once(machine, tf32, capsys):
    runtime = machine(devices=["CUDAExecutionProvider"])
    for model in (MODEL, STACK):
        session = session_for(serialized(model), tf32=tf32)
        provider, options = session.asked[0]
        assert (provider, options) == (
            "CUDAExecutionProvider",
            {"use_tf32": str(int(tf32))},
        )
    assert runtime.loaded == 1
    assert capsys.readouterr().out == ""


def test_cuda_that_became_a_cpu_is_an_error(machine):
    machine(falls_back=True)
    with pytest.raises(RuntimeError, match=r"fell back.*\[onnxruntime-gpu-cuda\]"):
        session_for(serialized(MODEL), device="cuda")
    machine(knows_cuda=False)
    with pytest.raises(RuntimeError, match=r"knows no CUDA.*\[onnxruntime-gpu\]"):
        session_for(serialized(MODEL), device="cuda")


@pytest.mark.parametrize(
    ("module", "require", "extra"),
    [
        ("onnx", extras.require_onnx, r'"keras-muon\[onnx\]"'),
        ("onnxruntime", extras.require_onnxruntime, r'"keras-muon\[onnxruntime-gpu\]"'),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, module, require, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=rf"{module}, which is not installed.*{extra}"
    ):
        require()


def test_two_runtimes_over_each_other_are_named(monkeypatch):
    """Once per process, wherever the first graph runs."""
    extras._warn_of_two_runtimes.cache_clear()
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: name)
    with pytest.warns(UserWarning, match="Both onnxruntime and onnxruntime-gpu are"):
        extras.require_onnxruntime()
    extras.require_onnxruntime()
