"""When AdamW's moments of each variable began, which is not always the first step.

Its bias correction makes up for moments that begin at zero. Where a file restores the
count of steps, but not the moments of a variable, these begin later: with the whole
count, the variable's steps would be several times too far at beta_2 = 0.999.
"""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_muon.saved_state import read_state

Variable = Any

IN_A_FILE = re.compile(r"_start( \d+)?$")


class _Start:
    """The count of steps before a variable's moments began; a file holds it as such."""

    shape = ()

    def __init__(self, moments: Sequence[Variable], steps: int):
        self.moments, self.steps = moments, steps

    @property
    def name(self) -> str:
        _, velocity = self.moments
        return f"{velocity.name}_start"

    def assign(self, value: Any) -> None:
        self.steps = int(value)

    def numpy(self) -> np.ndarray:
        return np.asarray(self.steps)


class MomentStarts:
    """The starts of all variables that AdamW updates.

    Args:
        states: The state of each variable: its momentum, and AdamW's second moment.
        steps: Count of steps before now.
    """

    def __init__(self, states: Sequence[Sequence[Variable]], steps: int):
        self._starts = {
            index: _Start(state, steps)
            for index, state in enumerate(states)
            if len(state) > 1
        }

    def of(self, index: int) -> int:
        """Return the count of steps before a variable's moments began."""
        # What Keras assigns itself, scales of float8, has none.
        start = self._starts.get(index)
        return start.steps if start else 0

    def late(self) -> list[int]:
        """Return the indices of variables whose moments began after the first step."""
        return [index for index, start in self._starts.items() if start.steps]

    def entries(self) -> list[_Start]:
        """Return what a file must hold beside the variables: nothing, as a rule."""
        return list(self._starts.values()) if self.late() else []

    def restore(self, optimizer: Any, store: Any) -> bool:
        """Restore the state that a file has, and the starts that follow from it.

        Args:
            optimizer: The built `Muon`.
            store: The file's entries.

        Returns:
            Whether starts changed.
        """
        starts = list(self._starts.values())
        # All or none: names that a model was given anew are told by their order.
        saved = starts if any(map(IN_A_FILE.search, store.keys())) else []
        before = [start.steps for start in starts]
        taken = int(optimizer.iterations)
        missing = read_state(
            optimizer.name,
            optimizer.variables,
            store,
            optional=saved,
            together=[start.moments for start in starts],
        )
        if missing is None:
            return False
        left = set(map(id, missing))
        for start, old in zip(starts, before, strict=True):
            if id(start.moments[0]) in left:
                # It stays as old as it is.
                start.steps = old + int(optimizer.iterations) - taken
            elif not saved or id(start) in left:
                start.steps = 0
        changed = before != [start.steps for start in starts]
        if changed and taken and keras.backend.backend() != "torch":
            _warn_of_compiled_steps(optimizer.name)
        return changed


def _warn_of_compiled_steps(name: str) -> None:
    warnings.warn(
        f"Moments of optimizer {name!r} began at other steps than before. Compile the "
        "model again: steps that were compiled before loading do not know.",
        UserWarning,
        stacklevel=4,
    )
