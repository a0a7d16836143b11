"""What every test shares: the backend, seeds, and tolerances with their origin."""

import os

# One thread for products, here and in processes that tests start: workers with several
# threads each only wait for each other. NumPy and torch read this when imported.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# Torch first: with TensorFlow in the process before it, its import has crashed.
import torch

BACKENDS = ("tensorflow", "jax", "torch")

# TensorFlow counts the memory of a CPU with oneDNN alone, which it takes by itself only
# on processors with AVX-512.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

if os.environ.get("KERAS_BACKEND") not in BACKENDS:
    raise RuntimeError(
        f"Set KERAS_BACKEND to one of {BACKENDS}; tests never choose it by themselves. "
        "`tox` runs all three."
    )

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from keras_muon import planning  # noqa: E402

KERAS = keras.__version__


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(20241204)


@pytest.fixture(autouse=True)
def _wide_products(request, monkeypatch):
    """`compute_dtype="auto"` is as on a machine without fast bfloat16 products.

    Tolerances are those of float32 then, wherever tests run. `machine_dtype` marks the
    tests that want what this machine chooses.
    """
    if not request.node.get_closest_marker("machine_dtype"):
        monkeypatch.setattr(planning, "multiplies_bfloat16", lambda **_: False)


@pytest.fixture
def rng():
    return np.random.default_rng(20241204)


@pytest.fixture
def quick_compilation():
    """On JAX, compile without most optimizations.

    For models and layers that run a few times: XLA needs up to 40 seconds for each deep
    network on one core otherwise, to save fractions of a second.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def four_threads():
    """Torch's: more than any machine of tests may have, so that some can share them."""

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def backend():
    return keras.backend.backend()


def pytest_configure(config):
    meaning = "machine_dtype: `auto` may compute in bfloat16, as outside of tests."
    config.addinivalue_line("markers", meaning)


def pytest_report_header():
    return f"keras {KERAS} on {keras.backend.backend()}"


def pytest_terminal_summary(terminalreporter):
    passed = len(terminalreporter.stats.get("passed", []))
    backend = keras.backend.backend()
    line = f"{passed} tests passed on backend {backend}, Keras {KERAS}"
    terminalreporter.write_line(line)
