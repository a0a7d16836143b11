"""One bucket on ONNX Runtime: parameters and state stay on the device, in place."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from keras_muon.export.arrays import as_number
from keras_muon.export.extras import require_onnxruntime
from keras_muon.export.manifest import Bucket
from keras_muon.export.running import content_of
from keras_muon.export.sessions import CUDA, session_for
from keras_muon.export.step_ports import ADAMW_STATE, MUON_STATE

Arrays = dict[str, np.ndarray]


class BucketRunner:
    """Moves the variables of a bucket, step by step.

    Args:
        folder: Where the graph is.
        bucket: What the manifest says about it.
        values: By name of an input, `{variable: array}`: of `"parameter"`, and of the
            state, where missing variables start from zero.
        **session_arguments: Of `session_for`.
    """

    def __init__(
        self,
        folder: Path,
        bucket: Bucket,
        values: dict[str, Arrays],
        **session_arguments: Any,
    ):
        self.bucket = bucket
        content = content_of(folder / bucket.graph)
        if hashlib.sha256(content).hexdigest() != bucket.sha256:
            raise ValueError(
                f"{str(folder / bucket.graph)!r} is not the graph that the manifest "
                "was written with. Export the optimizer again."
            )
        self._session = session_for(content, **session_arguments)
        self._binding = self._session.io_binding()
        on_cuda = CUDA in self._session.get_providers()
        self._device = "cuda" if on_cuda else "cpu"
        self._bound: dict[str, Any] = {}
        self._hold = require_onnxruntime().OrtValue.ortvalue_from_numpy
        self._bind_state(values)
        zeros = np.zeros(bucket.extents, bucket.dtype)
        self._bind("gradient", zeros)
        self._bind("learning_rate", np.zeros((), bucket.dtype))
        decay = as_number("`weight_decay`", bucket.weight_decay, bucket.dtype)
        self._bind("weight_decay", decay)
        if bucket.rule == "adamw":
            self._bind("step", np.zeros((), np.int64))

    @property
    def state_names(self) -> list[str]:
        """The state of the rule: momentum, and AdamW's velocity."""
        return state_names(self.bucket)

    def rate(self, learning_rate: float) -> np.ndarray:
        """Return a rate in the bucket's dtype, or refuse it, before anything moves."""
        described = f"The learning rate of {self.bucket.rule}"
        return as_number(described, learning_rate, self.bucket.dtype)

    def step(self, gradients: Arrays, rate: np.ndarray, number: int) -> None:
        """Move all variables by one step.

        Args:
            gradients: By name of the variable.
            rate: The rate of this rule at this step, from `rate`.
            number: Number of this step, counted from 1.
        """
        self._bound["gradient"].update_inplace(self.bucket.stack(gradients))
        self._bound["learning_rate"].update_inplace(rate)
        if "step" in self._bound:
            self._bound["step"].update_inplace(np.asarray(number, np.int64))
        self._session.run_with_iobinding(self._binding)

    def values(self, name: str) -> Arrays:
        """Return parameters or a state by variable, as copies.

        Args:
            name: `"parameter"`, `"momentum"` or `"velocity"`.
        """
        return self.bucket.unstack(self._bound[name].numpy())

    def _bind_state(self, values: dict[str, Arrays]) -> None:
        """Bind each input of the state, and the output that replaces it in place."""
        for output, name in _state(self.bucket).items():
            given = values.get(name, {})
            filled = {
                entry.name: given.get(entry.name, np.zeros(entry.shape))
                for entry in self.bucket.variables
            }
            held = self._bind(name, self.bucket.stack(filled))
            self._binding.bind_ortvalue_output(output, held)

    def _bind(self, name: str, array: np.ndarray) -> Any:
        # On a CPU the value shares the array's memory: `array` must be nobody else's.
        held = self._bound[name] = self._hold(array, self._device, 0)
        self._binding.bind_ortvalue_input(name, held)
        return held


def state_names(bucket: Bucket) -> list[str]:
    """Return the names of the state that a bucket's rule keeps."""
    return list(_state(bucket).values())[1:]


def _state(bucket: Bucket) -> dict[str, str]:
    return ADAMW_STATE if bucket.rule == "adamw" else MUON_STATE
