"""Exported graphs on runtimes of other houses: does each load them, and is it right?

As a script it is the process of one runtime, which `onnx_runtimes.py` starts:

    python examples/benchmarks/runtime_cells.py openvino FOLDER
"""

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cases import SEED, polar_by_svd

from keras_muon.schedules import SCHEDULES

# The first and the last version of the operators that released runtimes load.
OPSETS = (18, 26)
DTYPES = ("float32", "float64")
TOLERANCES = {"float32": 5e-6, "float64": 1e-12}
RATE, DECAY, MOMENTUM = 0.02, 0.1, 0.9

# name: what is exported with which arguments, and the shape of its matrices
LAYOUTS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "static": ("newton_schulz", {"shape": (48, 96)}, (48, 96)),
    "batched": ("newton_schulz", {"shape": (96, 48), "batch": 3}, (3, 96, 48)),
    "dynamic": (
        "newton_schulz",
        {"shape": ("rows", "columns"), "dynamic": True},
        (96, 48),
    ),
    "planned": (
        "newton_schulz",
        {"shape": (400, 384), "batch": 2, "schedule": "auto", "method": "planned"},
        (2, 400, 384),
    ),
    "panels": ("newton_schulz", {"shape": (512, 528), "panels": 3}, (512, 528)),
    "step": (
        "muon_step",
        {"shape": (48, 96), "schedule": "jordan", "momentum": MOMENTUM},
        (48, 96),
    ),
}

# The module that each runtime needs.
MODULES = {
    "reference": "onnx",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tract": "tract",
    "cuda": "onnxruntime",
}


def by_reference(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(str(path)).run(None, arrays)[0]


def by_onnxruntime(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    return _first_output(path, arrays, "cpu")


def by_onnxruntime_on_cuda(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    return _first_output(path, arrays, "cuda")


def by_openvino(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    import openvino

    # Without it, OpenVINO computes in bfloat16 on CPUs that have it.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", exact)
    return compiled(list(arrays.values()))[0]


def by_tract(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    import tract

    runnable = tract.onnx().load(path).into_model().into_runnable()
    return runnable.run(list(arrays.values()))[0].to_numpy()


RUNTIMES: dict[str, Callable[[Path, dict[str, np.ndarray]], np.ndarray]] = {
    "reference": by_reference,
    "onnxruntime": by_onnxruntime,
    "openvino": by_openvino,
    "tract": by_tract,
    "cuda": by_onnxruntime_on_cuda,
}


def write_graphs(folder: Path) -> list[str]:
    """Write every graph with its inputs and its exact output; return their names."""
    from keras_muon import export
    from keras_muon.export.oracle import expected_outputs

    names = []
    for layout, dtype, opset in itertools.product(LAYOUTS, DTYPES, OPSETS):
        kind, arguments, shape = LAYOUTS[layout]
        model = getattr(export, kind)(dtype=dtype, opset=opset, **arguments)
        name = f"{layout}, {dtype}, opset {opset}"
        arrays, expected = _arrays(kind, shape, dtype)
        if layout == "planned":
            # What is compressed is no longer a polynomial of singular values alone.
            specification = export.specification_of(model)
            (expected,) = expected_outputs(specification, arrays)
        (folder / f"{name}.onnx").write_bytes(export.serialized(model))
        np.savez(folder / f"{name}.npz", expected=expected, **arrays)
        names.append(name)
    return names


def measured(runtime: str, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the largest error by graph; or, if one is refused, the reason."""
    cells: dict[str, Any] = {}
    for name in names:
        arrays = dict(np.load(folder / f"{name}.npz"))
        expected = arrays.pop("expected")
        try:
            result = RUNTIMES[runtime](folder / f"{name}.onnx", arrays)
        except Exception as error:  # whatever a foreign runtime raises is its answer
            lines = str(error).splitlines()
            cells[name] = f"{type(error).__name__}: {lines[0] if lines else ''}"
        else:
            cells[name] = float(np.abs(np.asarray(result, "float64") - expected).max())
    return cells


def _first_output(path: Path, arrays: dict[str, np.ndarray], device: str) -> np.ndarray:
    from keras_muon.export import run

    outputs = run(path, *arrays.values(), device=device)
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _arrays(
    kind: str, shape: tuple[int, ...], dtype: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The inputs by name, in the order of the graph, and the exact first output."""
    generator = np.random.default_rng(SEED)
    triples = SCHEDULES["jordan"].take()
    if kind == "newton_schulz":
        update = generator.standard_normal(shape).astype(dtype)
        return {"update": update}, polar_by_svd(update, triples)
    names = ("parameter", "gradient", "momentum")
    arrays = {n: generator.standard_normal(shape).astype(dtype) for n in names}
    w, g, m = (array.astype("float64") for array in arrays.values())
    arrays["learning_rate"] = np.asarray(RATE, dtype)
    arrays["weight_decay"] = np.asarray(DECAY, dtype)
    polar = polar_by_svd(g + MOMENTUM * (MOMENTUM * m + g), triples)
    scale = 0.2 * np.sqrt(max(shape))
    return arrays, (1 - RATE * DECAY) * w - RATE * scale * polar


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runtime", choices=RUNTIMES)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    names = [path.stem for path in arguments.folder.glob("*.onnx")]
    cells = measured(arguments.runtime, arguments.folder, names)
    answer = arguments.folder / f"{arguments.runtime}.json"
    answer.write_text(json.dumps(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
