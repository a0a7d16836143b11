"""Times of Newton-Schulz, each framework in a long-lived process that waits its turn.

As a script it is such a process. It reads lines such as `auto 768x3072 5` (a key of
`METHODS`, a shape and a number of calls) and answers with the seconds of each call:

    python examples/benchmarks/turns.py torch cpu
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
from implementations import BACKENDS, graph_for
from numpy_ops import orthogonalize as orthogonalize_by_numpy
from processes import FOLDER, environment

from keras_muon.schedules import SCHEDULES

Times = dict[str, dict[str, list[float]]]

# How each schedule is computed, in float32 and by all frameworks alike: a Gram matrix
# per step, or as the optimizer plans it.
METHODS = {"jordan": "standard", "auto": "planned"}
FRAMEWORKS = ("onnxruntime", *BACKENDS, "numpy")

# Threads of some frameworks spin for 0.2 s after their work, to be ready for more.
PAUSE = 0.3
TURN = 0.3  # seconds that a turn should take
# Calls of a turn, of which the median counts: after a pause the first one is cold.
FEWEST_CALLS = 3
ANSWER = "seconds:"


def prepared(
    name: str, schedule: str, x: np.ndarray, device: str
) -> Callable[[], object]:
    """Return a function that orthogonalizes `x` once and waits for the result.

    Args:
        name: One of `FRAMEWORKS`.
        schedule: One of `METHODS`.
        x: Matrices, which are moved to the device once.
        device: `"cpu"` or `"cuda"`.
    """
    if name == "numpy":
        planned = METHODS[schedule] == "planned"
        return lambda: orthogonalize_by_numpy(x, SCHEDULES[schedule], planned=planned)
    if name == "onnxruntime":
        return _by_onnxruntime(schedule, x, device)
    return _by_keras(name, schedule, x, device)


def timed(
    names: Sequence[str], shapes: Sequence[Sequence[int]], rounds: int, device: str
) -> Times:
    """Return seconds of a turn's median call, by schedule with shape and framework.

    Args:
        names: Frameworks.
        shapes: Of the matrices.
        rounds: Turns of each framework for each shape.
        device: `"cpu"` or `"cuda"`.
    """
    with ExitStack() as stack:
        workers = {n: stack.enter_context(_worker(n, device)) for n in names}
        texts = ["x".join(map(str, shape)) for shape in shapes]
        works = [f"{schedule} {text}" for schedule in METHODS for text in texts]
        return {work: _rounds(workers, work, rounds) for work in works}


def _rounds(
    workers: dict[str, subprocess.Popen], work: str, rounds: int
) -> dict[str, list[float]]:
    """Let each worker have its turn in every round; another begins each time."""
    names, calls = list(workers), {}
    for name, worker in workers.items():
        _turn(worker, work, 1)  # compiles
        (seconds,) = _turn(worker, work, 1)
        calls[name] = max(FEWEST_CALLS, round(TURN / seconds))
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            time.sleep(PAUSE)
            turn = _turn(workers[name], work, calls[name])
            times[name].append(statistics.median(turn))
    return times


def _by_onnxruntime(schedule: str, x: np.ndarray, device: str) -> Callable[[], object]:
    from keras_muon.export import run
    from keras_muon.plan_choice import PANELS

    # As the plan of torch below, which it takes on CPUs for single matrices.
    panels = PANELS if _panelled(x, device) else 1
    model = graph_for(x, SCHEDULES[schedule], METHODS[schedule], panels)
    given = x
    if device == "cuda":
        from onnxruntime import OrtValue

        given = OrtValue.ortvalue_from_numpy(x, "cuda", 0)
    return lambda: run(model, given, device=device)


def _by_keras(
    backend: str, schedule: str, x: np.ndarray, device: str
) -> Callable[[], object]:
    os.environ["KERAS_BACKEND"] = backend
    import keras

    import keras_muon  # noqa: F401 (before `planning`, which is not public)
    from keras_muon.plan_choice import plan_for
    from keras_muon.planning import polar_factor

    *_, fan_in, fan_out = x.shape
    planned = METHODS[schedule] == "planned"
    plan = plan_for(
        fan_in,
        fan_out,
        SCHEDULES[schedule],
        "float32",
        steps=None if planned else SCHEDULES[schedule].steps,
        shared=planned,
        panelled=_panelled(x, device),
    )

    def compute(tensor):
        return polar_factor(tensor, plan)

    tensor = keras.ops.convert_to_tensor(x)
    if backend == "jax":
        import jax

        compiled = jax.jit(compute)
        return lambda: compiled(tensor).block_until_ready()
    if backend == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(compute, jit_compile=True)
        return lambda: (compiled(tensor), tf.test.experimental.sync_devices())
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    return lambda: (compute(tensor), wait())


def _panelled(x: np.ndarray, device: str) -> bool:
    """Whether half of a symmetric product is mirrored, by who can: torch, and graphs.

    XLA cannot write panels where they belong, and NumPy leaves it to its BLAS.
    """
    return device == "cpu" and x.ndim == 2


def _worker(name: str, device: str) -> subprocess.Popen:
    """Start a process; as a context it is told to end and waited for."""
    return subprocess.Popen(
        [sys.executable, str(FOLDER / "turns.py"), name, device],
        env=environment(device),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _turn(worker: subprocess.Popen, work: str, calls: int) -> list[float]:
    worker.stdin.write(f"{work} {calls}\n")
    worker.stdin.flush()
    for line in worker.stdout:
        if line.startswith(ANSWER):
            return [float(x) for x in line.removeprefix(ANSWER).split()]
    raise RuntimeError(f"{' '.join(worker.args[2:])} ended with {worker.wait()}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=FRAMEWORKS)
    parser.add_argument("device", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    functions: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        work, calls = line.rsplit(maxsplit=1)
        if work not in functions:
            schedule, text = work.split()
            shape = [int(extent) for extent in text.split("x")]
            x = np.random.default_rng(0).standard_normal(shape).astype("float32")
            given = (arguments.name, schedule, x, arguments.device)
            functions[work] = prepared(*given)
        seconds = []
        for _ in range(int(calls)):
            start = time.perf_counter()
            functions[work]()
            seconds.append(time.perf_counter() - start)
        print(ANSWER, *seconds, flush=True)


if __name__ == "__main__":
    main()
