"""The process that measures the memory of one contender, for `optimizer_step.py`."""

from typing import Any

from contenders import contender
from machine import frameworks
from memory import temporary_bytes
from step_inputs import read_inputs
from workers import Options, answered


def measured(backend: str, options: Options) -> dict[str, Any]:
    """Return the bytes that a step of `options["name"]` needs for a while.

    Args:
        backend: The one that Keras runs on.
        options: `name`, `inputs`, `shapes` and `jit`.
    """
    gradients, _ = read_inputs(options["inputs"], options["shapes"])
    step = contender(options["name"], backend, gradients, options["jit"]).step
    device = frameworks(backend)["device kind"]
    return {"temporary bytes": temporary_bytes(step, backend, device)}


if __name__ == "__main__":
    answered(measured)
