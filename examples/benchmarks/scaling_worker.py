"""The process of one backend, which times series of shapes, for `scaling.py`."""

from typing import Any

from contenders import BUILT_IN, OURS, OURS_APART, contender
from interleaving import interleaved
from step_inputs import gradients_of
from workers import Options, answered

RACING = (OURS, OURS_APART, BUILT_IN)


def measured(backend: str, options: Options) -> dict[str, Any]:
    """Return seconds by series, point and contender.

    Args:
        backend: The one that Keras runs on.
        options: `series` (shapes by name and point), `rounds`, `turn` and `jit`.
    """
    times = {
        name: {
            point: _timed(backend, shapes, options) for point, shapes in points.items()
        }
        for name, points in options["series"].items()
    }
    return {"seconds": times}


def _timed(backend: str, shapes: list, options: Options) -> dict[str, Any]:
    gradients = gradients_of(shapes)
    racing = [contender(n, backend, gradients, options["jit"]) for n in RACING]
    for one in racing:
        one.step()  # compiles
    steps = {one.name: one.step for one in racing}
    return interleaved(steps, options["rounds"], options["turn"])


if __name__ == "__main__":
    answered(measured)
