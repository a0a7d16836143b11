"""The house's floors: who may import whom, read from the sources."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

# The integer part is the floor of the architecture: 0 plain values, 1 the iteration,
# 2 Keras, 3 the optimizer, 4 the public names and the ONNX half. Decimals order modules
# within a floor. Imports go strictly down. A new module needs a row here.
FLOORS = {
    "keras_muon": 4.0,
    "keras_muon.adamw": 1.0,
    "keras_muon.admissible": 0.1,
    "keras_muon.base_arguments": 0.1,
    "keras_muon.batching": 2.05,
    "keras_muon.bucketed_optimizer": 2.2,
    "keras_muon.compression": 1.1,
    "keras_muon.declared_views": 2.1,
    "keras_muon.description": 2.0,
    "keras_muon.devices": 2.0,
    "keras_muon.export": 4.9,
    "keras_muon.export.__main__": 5.0,
    "keras_muon.export.adamw_step_graph": 4.4,
    "keras_muon.export.alias_safety": 4.0,
    "keras_muon.export.arguments": 4.0,
    "keras_muon.export.arrays": 4.0,
    "keras_muon.export.backend_test_data": 4.6,
    "keras_muon.export.bucket_graph": 4.45,
    "keras_muon.export.bucket_runner": 4.4,
    "keras_muon.export.check_row": 4.0,
    "keras_muon.export.checks": 4.6,
    "keras_muon.export.cli": 4.8,
    "keras_muon.export.cli_export": 4.8,
    "keras_muon.export.cli_inspect": 4.8,
    "keras_muon.export.cli_options": 4.1,
    "keras_muon.export.cli_parser": 4.2,
    "keras_muon.export.cli_run": 4.8,
    "keras_muon.export.cli_types": 4.0,
    "keras_muon.export.cli_verify": 4.8,
    "keras_muon.export.cost": 4.0,
    "keras_muon.export.differences": 4.0,
    "keras_muon.export.examination": 4.7,
    "keras_muon.export.extras": 4.0,
    "keras_muon.export.finish": 4.2,
    "keras_muon.export.folder": 4.1,
    "keras_muon.export.formulas": 4.0,
    "keras_muon.export.graph_writer": 4.1,
    "keras_muon.export.iteration": 4.04,
    "keras_muon.export.manifest": 4.0,
    "keras_muon.export.muon_step_graph": 4.4,
    "keras_muon.export.newton_schulz_graph": 4.3,
    "keras_muon.export.optimizer_export": 4.5,
    "keras_muon.export.oracle": 4.05,
    "keras_muon.export.panel_products": 4.12,
    "keras_muon.export.probes": 4.1,
    "keras_muon.export.product_nodes": 4.15,
    "keras_muon.export.reading": 4.0,
    "keras_muon.export.recorder": 4.2,
    "keras_muon.export.refusals": 4.1,
    "keras_muon.export.report": 4.1,
    "keras_muon.export.result_checks": 4.4,
    "keras_muon.export.running": 4.3,
    "keras_muon.export.sessions": 4.1,
    "keras_muon.export.specification": 4.5,
    "keras_muon.export.step_ports": 4.3,
    "keras_muon.export.step_runner": 4.5,
    "keras_muon.export.target": 4.0,
    "keras_muon.find_model": 2.1,
    "keras_muon.gradients": 2.1,
    "keras_muon.in_turn": 2.0,
    "keras_muon.keras_hub_views": 2.0,
    "keras_muon.keras_ops": 2.05,
    "keras_muon.kernels": 2.0,
    "keras_muon.layer_views": 2.2,
    "keras_muon.leading": 0.4,
    "keras_muon.matrix_optimizer": 2.9,
    "keras_muon.matrix_view": 0.1,
    "keras_muon.messages": 0.0,
    "keras_muon.minimax": 0.3,
    "keras_muon.model_walk": 2.3,
    "keras_muon.momentum": 1.0,
    "keras_muon.muon": 3.0,
    "keras_muon.muon_direction": 2.2,
    "keras_muon.newton_schulz": 1.0,
    "keras_muon.opaque_values": 2.05,
    "keras_muon.orthogonalizing": 2.2,
    "keras_muon.output_heads": 2.1,
    "keras_muon.panels": 2.0,
    "keras_muon.plan": 0.5,
    "keras_muon.plan_choice": 0.55,
    "keras_muon.planning": 2.15,
    "keras_muon.products": 0.45,
    "keras_muon.symbolic_calls": 2.0,
    "keras_muon.rates": 2.0,
    "keras_muon.registration": 3.1,
    "keras_muon.roles": 0.2,
    "keras_muon.route_patterns": 0.3,
    "keras_muon.route_source": 2.4,
    "keras_muon.routing": 0.2,
    "keras_muon.saved_state": 2.0,
    "keras_muon.scaling": 0.1,
    "keras_muon.schedules": 0.2,
    "keras_muon.state": 2.0,
    "keras_muon.steps": 2.4,
    "keras_muon.sublayers": 2.0,
    "keras_muon.tensorflow_ops": 2.1,
    "keras_muon.torch_ops": 2.1,
    "keras_muon.torch_steps": 2.3,
    "keras_muon.version": 0.0,
    "keras_muon.writing": 2.0,
    "keras_muon.xla_ops": 2.1,
}
EXPORT = "keras_muon.export"
FIRST_FLOOR_WITH_THIRD_PARTIES = 2
# From here on modules import Keras, which the ONNX half does without.
FIRST_FLOOR_WITH_KERAS = 2


def sources():
    """The file of every module, installed or editable, by its name."""
    found = {}
    for package in ("keras_muon", EXPORT):
        folder = Path(importlib.util.find_spec(package).origin).parent
        for path in folder.glob("*.py"):
            name = package if path.stem == "__init__" else f"{package}.{path.stem}"
            found[name] = path
    return found


SOURCES = sources()


def imports_of(module, source, is_package=False):
    """Every dotted name that a source imports, wherever in it the statement stands."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            origin = importlib.util.resolve_name(name, package)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def module_of(name):
    """The module of this project that an imported name is or lies in, or None."""
    while name and name not in FLOORS:
        name = name.rpartition(".")[0]
    return name or None


def violations(module, source, is_package=False):
    """What a source imports against the rules of the house, in words."""
    floor = FLOORS[module]
    for name in imports_of(module, source, is_package):
        top = name.partition(".")[0]
        if name.startswith("keras.src"):
            yield f"{name} is private"
        if top != "keras_muon":
            if floor < FIRST_FLOOR_WITH_THIRD_PARTIES and not is_standard(top):
                yield f"{name} on floor {floor}"
            if top == "export":
                yield f"{name} outside export"
            if module.startswith(EXPORT) and top == "keras":
                yield f"{name} in export"
            continue
        other = module_of(name)
        if other.startswith(EXPORT) and not module.startswith(EXPORT):
            yield f"{name} outside export"
        needs_keras = FLOORS[other] >= FIRST_FLOOR_WITH_KERAS
        if module.startswith(EXPORT) and not other.startswith(EXPORT) and needs_keras:
            yield f"{name} in export"
        if FLOORS[other] >= floor:
            yield f"{name} on floor {FLOORS[other]} from floor {floor}"


def is_standard(top):
    return top in sys.stdlib_module_names


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
