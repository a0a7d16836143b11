"""The house's floors, and what the sources of its modules import against them."""

import ast
import importlib.util
import sys
from pathlib import Path

# The integer part is the floor of the architecture: 0 plain values, 1 the iteration,
# 2 Keras, 3 the optimizer, 4 the public names and the ONNX half. Decimals order modules
# within a floor. Imports go strictly down. A new module needs a row here.
FLOORS = {
    "keras_muon": 4.0,
    "keras_muon.adamw": 1.0,
    "keras_muon.admissible": 0.1,
    "keras_muon.base_arguments": 0.1,
    "keras_muon.batching": 2.05,
    "keras_muon.bucket": 2.1,
    "keras_muon.bucketed_optimizer": 2.2,
    "keras_muon.building": 2.15,
    "keras_muon.callers": 2.0,
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
    "keras_muon.export.file_errors": 4.0,
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
    "keras_muon.export.reading": 4.05,
    "keras_muon.export.recorder": 4.2,
    "keras_muon.export.refusals": 4.1,
    "keras_muon.export.report": 4.1,
    "keras_muon.export.result_checks": 4.4,
    "keras_muon.export.running": 4.3,
    "keras_muon.export.sessions": 4.1,
    "keras_muon.export.specification": 4.5,
    "keras_muon.export.step_ports": 4.3,
    "keras_muon.export.step_runner": 4.5,
    "keras_muon.export.target": 4.05,
    "keras_muon.find_model": 2.1,
    "keras_muon.freed_memory": 2.0,
    "keras_muon.gradients": 2.1,
    "keras_muon.graph_order": 2.0,
    "keras_muon.in_turn": 2.0,
    "keras_muon.keras_hub_views": 2.0,
    "keras_muon.keras_ops": 2.05,
    "keras_muon.kernels": 2.0,
    "keras_muon.known_buckets": 2.5,
    "keras_muon.layer_views": 2.2,
    "keras_muon.leading": 0.4,
    "keras_muon.matrix_ops": 1.0,
    "keras_muon.matrix_optimizer": 2.9,
    "keras_muon.matrix_view": 0.1,
    "keras_muon.messages": 0.0,
    "keras_muon.minimax": 0.3,
    "keras_muon.model_walk": 2.3,
    "keras_muon.moment_starts": 2.1,
    "keras_muon.momentum": 1.0,
    "keras_muon.muon": 3.0,
    "keras_muon.muon_direction": 2.2,
    "keras_muon.newton_schulz": 1.05,
    "keras_muon.opaque_values": 2.05,
    "keras_muon.orthogonalizing": 2.2,
    "keras_muon.output_heads": 2.1,
    "keras_muon.panels": 2.0,
    "keras_muon.plan": 0.5,
    "keras_muon.plan_choice": 0.55,
    "keras_muon.planning": 2.15,
    "keras_muon.probing": 2.05,
    "keras_muon.products": 0.45,
    "keras_muon.symbolic_calls": 2.0,
    "keras_muon.rates": 2.0,
    "keras_muon.registration": 3.1,
    "keras_muon.renaming": 0.1,
    "keras_muon.roles": 0.2,
    "keras_muon.route_patterns": 0.3,
    "keras_muon.route_source": 2.4,
    "keras_muon.routing": 0.2,
    "keras_muon.saved_state": 2.0,
    "keras_muon.scaling": 0.1,
    "keras_muon.settings": 0.2,
    "keras_muon.schedules": 0.2,
    "keras_muon.side_by_side": 2.1,
    "keras_muon.split_choice": 0.53,
    "keras_muon.split_products": 1.03,
    "keras_muon.stacked_momenta": 2.25,
    "keras_muon.state": 2.0,
    "keras_muon.steps": 2.4,
    "keras_muon.sublayers": 2.0,
    "keras_muon.tensorflow_ops": 2.1,
    "keras_muon.tied_products": 2.05,
    "keras_muon.torch_ops": 2.1,
    "keras_muon.torch_steps": 2.3,
    "keras_muon.version": 0.0,
    "keras_muon.waiting": 2.1,
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
