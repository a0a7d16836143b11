"""Write a Muon step as an ONNX file for `step.mjs`, and what one step must return.

    python examples/javascript/export_step.py
    cd examples/javascript && npm install && node step.mjs

Needs onnx and NumPy, no Keras. The expected values are computed in float64 by SVD.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console

from keras_muon import SCHEDULES
from keras_muon.export import muon_step, serialized

SHAPE = (16, 24)
MOMENTUM, RATE, DECAY = 0.9, 0.02, 0.1


def expected(parameter: np.ndarray, gradient: np.ndarray, momentum: np.ndarray) -> dict:
    """Return the results of one step, by the SVD and not by Newton-Schulz."""
    new_momentum = MOMENTUM * momentum + gradient
    u, s, vt = np.linalg.svd(gradient + MOMENTUM * new_momentum, full_matrices=False)
    s = s / np.linalg.norm(s)
    for a, b, c in SCHEDULES["you"].take():
        s = a * s + b * s**3 + c * s**5
    scale = 0.2 * np.sqrt(max(SHAPE))
    new_parameter = (1 - RATE * DECAY) * parameter - RATE * scale * (u * s) @ vt
    return {"new_parameter": new_parameter, "new_momentum": new_momentum}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().folder
    generator = np.random.default_rng(0)
    names = ("parameter", "gradient", "momentum")
    arrays = {name: generator.standard_normal(SHAPE) for name in names}
    values = {
        "shape": SHAPE,
        "inputs": {name: array.ravel().tolist() for name, array in arrays.items()},
        "learning_rate": RATE,
        "weight_decay": DECAY,
        "outputs": {k: v.ravel().tolist() for k, v in expected(**arrays).items()},
    }
    model = muon_step(SHAPE, momentum=MOMENTUM)
    (folder / "step.onnx").write_bytes(serialized(model))
    (folder / "step.json").write_text(json.dumps(values), encoding="utf-8")
    Console().print(f"Wrote step.onnx and step.json to {folder}", soft_wrap=True)


if __name__ == "__main__":
    main()
