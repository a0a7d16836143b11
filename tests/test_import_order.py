"""Names load when used, and Muon is registered whichever of the two comes first."""

import os
import subprocess
import sys

import keras
import pytest

import keras_muon
import keras_muon.export
from keras_muon import Muon


def run_python(code, *arguments, backend):
    """What a fresh process prints."""
    answer = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()


REGISTERED = """
print(keras.saving.get_registered_object("keras_muon>Muon") is keras_muon.Muon)
print(any(type(finder).__module__.startswith("keras_muon") for finder in sys.meta_path))
loader = keras.__spec__.loader
print(type(loader).__name__, "exec_module" in vars(loader))
"""
ORDERS = {
    "keras_first": "import sys, keras, keras_muon",
    "muon_first": "import sys, keras_muon, keras",
    "export_first": "import sys, keras_muon.export, keras, keras_muon",
    # A second hook, and a spec that nobody loads.
    "reloaded": "import sys, keras_muon, importlib, importlib.util\n"
    "importlib.reload(keras_muon)\n"
    "importlib.util.find_spec('keras')\n"
    "import keras",
}


@pytest.mark.parametrize("order", ORDERS)
def test_muon_is_registered_and_the_hook_is_gone(backend, order):
    printed = run_python(ORDERS[order] + REGISTERED, backend=backend)
    assert printed == ["True", "False", "SourceFileLoader", "False"]


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="once: JAX is the soonest to be imported"
)
@pytest.mark.parametrize("name", [*keras_muon.__all__, "muon"])
def test_every_name_may_be_imported_first(backend, name):
    """`register_views` could not: Keras asked for its half imported module."""
    code = f"from keras_muon import {name}\nprint({name}.__class__.__name__)"
    assert len(run_python(code, backend=backend)) == 1


LOADED = """
import sys
import keras_muon
import keras_muon.export
import keras
model = keras.saving.load_model(sys.argv[1])
print(type(model.optimizer).__module__, len(model.optimizer.routes))
"""


def test_a_saved_model_loads_after_either_order(backend, tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile(Muon(), "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    printed = run_python(LOADED, tmp_path / "model.keras", backend=backend)
    assert printed == ["keras_muon.muon", "2"]


LIGHT = """
import sys
import keras_muon.export
keras_muon.SCHEDULES, keras_muon.Schedule, keras_muon.MatrixView, keras_muon.Route
dir(keras_muon), dir(keras_muon.export), keras_muon.__version__
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_export_loads_neither_keras_nor_onnx(backend):
    loaded = set(run_python(LIGHT, backend=backend))
    heavy = {"keras", "onnx", "onnxruntime", "tensorflow", "jax", "torch", "numpy"}
    assert "keras_muon" in loaded
    assert loaded & heavy == set()


GRAPH = """
import sys
from keras_muon.export import muon_step, newton_schulz
newton_schulz((8, 4)), muon_step((8, 4))
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_graphs_are_made_without_keras_and_without_a_runtime(backend):
    loaded = set(run_python(GRAPH, backend=backend))
    assert "onnx" in loaded
    assert loaded & {"keras", "onnxruntime", "tensorflow", "jax", "torch"} == set()


STAR = """
from keras_muon import *
from keras_muon.export import *
print(Muon.__name__, orthogonalize.__name__, SCHEDULES["you"].name, muon_step.__name__)
"""


def test_star_imports_bring_every_public_name(backend):
    printed = run_python(STAR, backend=backend)
    assert printed == ["Muon", "orthogonalize", "you", "muon_step"]


WITHOUT_ONNX = """
import sys
sys.modules["onnx"] = None
import keras_muon.export
try:
    keras_muon.export.newton_schulz
except ImportError as error:
    print(error)
"""


def test_without_onnx_the_extra_is_named(backend):
    assert "keras-muon[onnx]" in " ".join(run_python(WITHOUT_ONNX, backend=backend))


@pytest.mark.parametrize("package", [keras_muon, keras_muon.export])
def test_unknown_names_are_attribute_errors(package):
    with pytest.raises(AttributeError, match=r"keras_muon.* has no attribute 'Moun'"):
        package.Moun  # noqa: B018
