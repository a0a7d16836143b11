"""The house's floors: who may import whom, read from the sources."""

import os
import subprocess
import sys

import pytest
from floors import FLOORS, SOURCES, violations


def test_every_module_has_its_floor():
    """The table and the folders hold the same modules."""
    assert SOURCES.keys() - FLOORS.keys() == set()
    assert FLOORS.keys() - SOURCES.keys() == set()


@pytest.mark.parametrize("module", sorted(SOURCES.keys() & FLOORS.keys()))
def test_imports_go_down_and_nowhere_else(module):
    """Strictly lower floors; no third party below Keras; nothing private."""
    path = SOURCES[module]
    found = violations(module, path.read_text("utf-8"), path.stem == "__init__")
    assert list(found) == []


@pytest.mark.parametrize(
    ("module", "source", "violation"),
    [
        ("scaling", "import numpy", "numpy on floor"),
        ("newton_schulz", "from keras import ops", "keras.ops on floor 1"),
        ("messages", "def f():\n    import keras.ops as o", "keras.ops on floor 0"),
        ("schedules", "from keras_muon.minimax import f", "floor 0.3 from floor 0.2"),
        ("scaling", "from keras_muon.matrix_view import f", "floor 0.1 from floor 0.1"),
        ("matrix_view", "import keras_muon.muon", "floor 3.0 from"),
        ("matrix_view", "from . import muon", "floor 3.0 from"),
        ("matrix_view", "from .muon import Muon", "floor 3.0 from"),
        ("matrix_view", "from keras_muon import muon", "floor 3.0 from"),
        ("keras_ops", "from keras_muon import Muon", "floor 4.0 from"),
        ("rates", "if CHECKING:\n    from .muon import Muon", "floor 3.0 from"),
        ("muon", "from keras_muon.export import run", "outside export"),
        ("muon", "from keras_muon import export", "outside export"),
        ("muon", "from export import run", "outside export"),
        ("muon", "import keras.src.optimizers", "is private"),
        ("muon", "from keras import src", "is private"),
        ("muon", "from keras.src.optimizers import optimizer", "is private"),
        ("export", "import keras", "keras in export"),
        ("export", "def f():\n    from keras import ops", "keras.ops in export"),
        (
            "export",
            "from keras_muon.muon import Muon",
            "muon.Muon in export",
        ),
        ("export", "from keras_muon import Muon", "keras_muon.Muon in export"),
    ],
    ids=lambda text: text.replace("\n", " "),
)
def test_the_checker_sees_violations(module, source, violation):
    """Every rule can fail: each of these sources breaks one."""
    found = violations(f"keras_muon.{module}", source)
    assert any(violation in words for words in found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("scaling", "import math\nfrom collections.abc import Callable"),
        ("schedules", "from keras_muon.messages import unknown_name"),
        ("schedules", "from .messages import unknown_name"),
        ("muon", "import keras\nfrom keras_muon.steps import step"),
        ("muon", "from keras_muon import steps"),
        ("export", "import onnx\nfrom keras_muon.newton_schulz import newton_schulz"),
    ],
    ids=lambda text: text.replace("\n", " "),
)
def test_the_checker_lets_good_sources_pass(module, source):
    """It does not fail at everything."""
    assert list(violations(f"keras_muon.{module}", source)) == []


LISTED = """
import sys
import keras
tops = lambda: {name.partition('.')[0] for name in sys.modules}
before = tops()
import keras_muon
print(*(tops() - before))
print(*tops())
"""


def test_import_loads_neither_onnx_nor_a_backend_that_keras_did_not_choose(backend):
    """In a fresh process, `import keras_muon` adds itself and nothing large."""
    answer = subprocess.run(
        [sys.executable, "-c", LISTED],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    added, loaded = (set(line.split()) for line in answer.stdout.splitlines())
    assert "keras_muon" in added
    assert added <= {"keras_muon", "rich", *sys.stdlib_module_names}
    # Keras imports jax itself, whatever the backend is.
    others = {"onnx", "onnxruntime", "tensorflow", "torch"} - {backend}
    assert backend in loaded
    assert others & loaded == set()
