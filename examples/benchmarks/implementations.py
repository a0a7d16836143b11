"""Everything that computes Newton-Schulz here, under one signature.

As a script it is the process of one of them, which `equivalence.py` starts:

    python examples/benchmarks/implementations.py jax INPUTS.npz OUTPUTS.npz
"""

import argparse
import os
from collections.abc import Callable

import numpy as np
from cases import polar_by_svd
from numpy_ops import orthogonalize as orthogonalize_by_numpy

from keras_muon.plan_choice import compresses
from keras_muon.schedules import SCHEDULES, Schedule

BACKENDS = ("tensorflow", "jax", "torch")

# What each needs to be installed. "svd" is the exact answer.
MODULES = {
    "svd": "numpy",
    **{backend: backend for backend in BACKENDS},
    "numpy": "numpy",
    "reference": "onnx",
    "onnxruntime": "onnxruntime",
}


def by_keras(x: np.ndarray, schedule: Schedule) -> np.ndarray:
    """`keras_muon.orthogonalize` on the backend that Keras runs on."""
    import keras

    from keras_muon import orthogonalize

    # "auto" would compute in bfloat16 where a processor has it.
    exact = {"compute_dtype": x.dtype.name}
    return keras.ops.convert_to_numpy(orthogonalize(x, schedule=schedule, **exact))


def by_numpy(x: np.ndarray, schedule: Schedule) -> np.ndarray:
    """The same iteration on NumPy arrays."""
    return orthogonalize_by_numpy(x, schedule)


def by_reference(x: np.ndarray, schedule: Schedule) -> np.ndarray:
    """The exported graph, read literally by the evaluator of the ONNX standard."""
    from onnx.reference import ReferenceEvaluator

    model = graph_for(x, schedule, method_for(x, schedule))
    return ReferenceEvaluator(model).run(None, {"update": x})[0]


def by_onnxruntime(x: np.ndarray, schedule: Schedule) -> np.ndarray:
    """The exported graph on ONNX Runtime."""
    from keras_muon.export import run

    return run(graph_for(x, schedule, method_for(x, schedule)), x)


def by_svd(x: np.ndarray, schedule: Schedule) -> np.ndarray:
    """The exact answer, in float64."""
    if method_for(x, schedule) == "standard":
        return polar_by_svd(x, schedule.take())
    from keras_muon.export import specification_of
    from keras_muon.export.oracle import expected_outputs

    # No polynomial of singular values alone; and what rest counts as rounding depends
    # on the dtype, so the specification is that of the graph.
    model = graph_for(x, schedule, "planned")
    return expected_outputs(specification_of(model), {"update": x})[0]


IMPLEMENTATIONS: dict[str, Callable[[np.ndarray, Schedule], np.ndarray]] = {
    "svd": by_svd,
    **dict.fromkeys(BACKENDS, by_keras),
    "numpy": by_numpy,
    "reference": by_reference,
    "onnxruntime": by_onnxruntime,
}


def method_for(x: np.ndarray, schedule: Schedule) -> str:
    """Return `"planned"` where another method would be another function.

    It is where the optimizer compresses. Elsewhere `"standard"` says the same, with
    other rounding than the backends, which share Gram matrices.
    """
    planned = compresses(*x.shape[-2:], schedule, x.dtype.name)
    return "planned" if planned else "standard"


def graph_for(
    x: np.ndarray, schedule: Schedule, method: str = "standard", panels: int = 1
):
    """Return the graph for the shape and dtype of an array.

    Args:
        x: The array.
        schedule: The schedule.
        method: As for `keras_muon.export.newton_schulz`.
        panels: The same.
    """
    from keras_muon.export import newton_schulz

    *batch, fan_in, fan_out = x.shape
    return newton_schulz(
        (fan_in, fan_out),
        batch=batch[0] if batch else None,
        schedule=schedule,
        method=method,
        dtype=x.dtype.name,
        panels=panels,
    )


def key(dtype: str, schedule: str, case: str) -> str:
    """Return the name of a result in a file of results."""
    return f"{dtype}/{schedule}/{case}"


def main() -> None:
    """Compute every case of a file of inputs, whose names are those of the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=IMPLEMENTATIONS)
    parser.add_argument("inputs")
    parser.add_argument("outputs")
    arguments = parser.parse_args()
    if arguments.name in BACKENDS:
        # Keras reads it when it is imported, which happens below.
        os.environ["KERAS_BACKEND"] = arguments.name
    compute = IMPLEMENTATIONS[arguments.name]
    results = {}
    for name, x in np.load(arguments.inputs).items():
        result = np.asarray(compute(x, SCHEDULES[name.split("/")[1]]))
        if result.dtype != x.dtype and arguments.name != "svd":
            raise TypeError(f"{name}: {result.dtype} came back as the result.")
        results[name] = result
    np.savez(arguments.outputs, **results)


if __name__ == "__main__":
    main()
