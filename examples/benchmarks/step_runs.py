"""The processes of an optimizer's race: one per backend, one per contender's memory."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import memory
from contenders import names_on
from implementations import BACKENDS
from processes import missing
from step_inputs import Shape, write_inputs
from workers import asked

# What TensorFlow's two forms are called in tables.
JIT = {True: "tensorflow, XLA", False: "tensorflow, without XLA"}
CHOICES = {"on": (True,), "off": (False,), "both": (True, False)}
# A Muon update farther than this from the polar factor was not orthogonalized.
# Schedules differ from it by 0.25 or less, an AdamW update by more than 1.
FARTHEST = 0.5


def forms(backends: Sequence[str], jit: str) -> list[tuple[str, str, bool]]:
    """Return (title, backend, jit) of every process.

    Args:
        backends: Names of backends.
        jit: A name in `CHOICES`, for TensorFlow.
    """
    found = []
    for backend in backends:
        if backend == "tensorflow":
            found += [(JIT[choice], backend, choice) for choice in CHOICES[jit]]
        else:
            found.append((backend, backend, True))
    return found


def wanted_backends(choice: str) -> tuple[list[str], list[str]]:
    """Return the backends of `--backend` that are installed, and those that are not."""
    wanted = BACKENDS if choice == "all" else (choice,)
    lacking = list(missing({name: name for name in BACKENDS}, wanted))
    return [name for name in wanted if name not in lacking], lacking


def raced(
    forms: Sequence[tuple[str, str, bool]],
    shapes: Sequence[Shape],
    device: str,
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """Return what `step_worker.py` answers for every form, by title.

    Args:
        forms: From `forms`.
        shapes: (in, out) of every matrix.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        **options: `rounds`, `turn`, and whether to measure `memory`.

    Returns:
        Nothing for a backend that lacks the device.
    """
    answers = {}
    with tempfile.TemporaryDirectory() as room:
        inputs = Path(room) / "inputs.npz"
        write_inputs(inputs, shapes)
        for title, backend, jit in forms:
            given = {"inputs": str(inputs), "shapes": list(shapes), "jit": jit}
            answer = asked("step_worker.py", backend, given | options, device)
            if answer and options["memory"]:
                _add_memory(backend, given, device, answer)
            answers[title] = answer
    return answers


def unorthogonalized(answer: dict[str, Any]) -> list[str]:
    """Return the contenders of Muon that left a matrix unorthogonalized, in words."""
    found = []
    for name, row in answer["contenders"].items():
        errors = row["orthogonality errors"] or []
        # Written so that what is not a number counts too.
        far = sum(not error <= FARTHEST for error in errors)
        if far:
            found.append(f"{name}: {far} of {len(errors)} not orthogonalized")
    return found


def _add_memory(
    backend: str, given: dict[str, Any], device: str, answer: dict[str, Any]
) -> None:
    """Fill in the temporaries that the process of the times could not tell."""
    for name in names_on(backend):
        row, options = answer["contenders"][name], given | {"name": name}
        if row["temporary bytes"] is None:
            extra = memory.ENVIRONMENT
            told = asked("memory_worker.py", backend, options, device, extra)
            row["temporary bytes"] = told["temporary bytes"]
