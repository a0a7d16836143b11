"""Train without Keras: an exported optimizer that moves arrays."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_muon.export.arrays import as_array, require_no_narrowing
from keras_muon.export.bucket_runner import BucketRunner, state_names
from keras_muon.export.manifest import Entry, Manifest
from keras_muon.messages import require_number
from keras_muon.routing import listed

Arrays = Mapping[str, Any]


class StepRunner:
    """Holds parameters and state, and moves them as the exported optimizer would.

    Args:
        folder: What `optimizer_step` wrote.
        parameters: `{name: array}`, the first values.
        state: `{name: {"momentum": array, "velocity": array}}`, as `variable_values`
            returns it. `"fresh"` starts from zeros at step 1, and so does None if the
            optimizer had taken no step when it was exported.
        iterations: Steps taken when these values were saved, `runner.iterations` of
            then: AdamW needs their number. None is that of the export, or 0 if fresh.
        device: `"cpu"`, `"cuda"`, or `"auto"` for CUDA where there is a device.
        tf32: Whether CUDA may round the factors of float32 products to 10 bits.
        threads: Threads of a CPU. None takes all that this process may use.

    Raises:
        FileNotFoundError: If the folder has no manifest or lacks a graph.
        ImportError: If ONNX Runtime is not installed.
        RuntimeError: If `device` is `"cuda"` and ONNX Runtime would use the CPU.
        ValueError: If names or shapes are not those of the manifest, or the state of
            an optimizer in mid-training is missing.

    Example:
        >>> import keras, keras_muon, tempfile
        >>> from keras_muon.export.optimizer_export import (
        ...     optimizer_step, variable_values)
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model.compile(keras_muon.Muon(1e-3), "mse")
        >>> model.optimizer.build(model.trainable_variables)
        >>> parameters, state = variable_values(model)
        >>> with tempfile.TemporaryDirectory() as room:
        ...     folder = optimizer_step(model, room + "/step")
        ...     runner = StepRunner(folder, parameters, state)
        >>> gradients = {name: np.ones_like(w) for name, w in parameters.items()}
        >>> new = runner.step(gradients, learning_rate=1e-3)
        >>> {name: w.shape for name, w in new.items()} == {
        ...     name: w.shape for name, w in parameters.items()}
        True
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        parameters: Arrays,
        state: Mapping[str, Arrays] | str | None = None,
        *,
        iterations: int | None = None,
        device: str = "auto",
        tf32: bool = False,
        threads: int | None = None,
    ):
        self.manifest = Manifest.read(Path(folder))
        self._iterations = self._checked_iterations(iterations, state)
        values = {"parameter": self._checked("parameters", parameters)}
        self._names = list(parameters)
        values |= self._checked_state(state)
        self._runners = [
            BucketRunner(
                Path(folder), bucket, values, device=device, tf32=tf32, threads=threads
            )
            for bucket in self.manifest.buckets
        ]

    @property
    def iterations(self) -> int:
        """Steps taken, those before the export included."""
        return self._iterations

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """Copies of the present parameters, by name, in the order first given."""
        arrays: dict[str, np.ndarray] = {}
        for runner in self._runners:
            arrays |= runner.values("parameter")
        return {name: arrays[name] for name in self._names}

    @property
    def state(self) -> dict[str, dict[str, np.ndarray]]:
        """Copies of the present state, by name of the variable and of the state."""
        state: dict[str, dict[str, np.ndarray]] = {name: {} for name in self._names}
        for runner in self._runners:
            for kind in runner.state_names:
                for name, array in runner.values(kind).items():
                    state[name][kind] = array
        return state

    def step(
        self,
        gradients: Arrays,
        learning_rate: float,
        adam_learning_rate: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Move all parameters by one step.

        Args:
            gradients: `{name: array}`, one per parameter, from wherever.
            learning_rate: The rate of this step.
            adam_learning_rate: AdamW's rate of this step. Needed if the optimizer had
                a schedule of its own for it, refused otherwise.

        Returns:
            The new parameters by name, as copies, in the order first given.

        Raises:
            TypeError: If a rate is no number, or a gradient no array.
            ValueError: If names, shapes or dtypes do not fit those of the parameters,
                or the rate of AdamW is missing or superfluous.
        """
        checked = self._checked("gradients", gradients)
        rates = {
            "muon": require_number("learning_rate", learning_rate),
            "adamw": self._adam_rate(learning_rate, adam_learning_rate),
        }
        # All of them before the first bucket moves.
        checked_rates = [r.rate(rates[r.bucket.rule]) for r in self._runners]
        for runner, rate in zip(self._runners, checked_rates, strict=True):
            runner.step(checked, rate, self._iterations + 1)
        self._iterations += 1
        return self.parameters

    def _adam_rate(self, learning_rate: float, given: float | None) -> float:
        ratio, constant = self.manifest.adam_ratio, self.manifest.adam_learning_rate
        own = ratio is None and constant is None
        if own != (given is not None):
            raise ValueError(
                "AdamW has a schedule of its own in this optimizer: pass its rate of "
                "this step as `adam_learning_rate`."
                if own
                else "`adam_learning_rate` follows from the manifest for this "
                f"optimizer; received {given}. Leave it out."
            )
        if given is not None:
            return require_number("adam_learning_rate", given)
        return learning_rate * ratio if ratio is not None else float(constant or 0.0)

    def _checked(self, argument: str, arrays: Arrays) -> dict[str, np.ndarray]:
        """Arrays by name: every variable of the manifest, no other, in its shape."""
        if not isinstance(arrays, Mapping):
            raise TypeError(
                f"`{argument}` must be a dictionary {{name: array}}, as "
                f"variable_values returns it; received {type(arrays).__name__}."
            )
        entries = {e.name: (e, b) for b in self.manifest.buckets for e in b.variables}
        missing = [name for name in entries if name not in arrays]
        unknown = [name for name in arrays if name not in entries]
        if missing or unknown:
            raise ValueError(
                f"`{argument}` must have one array per variable of the manifest; "
                f"missing: {listed(missing)}; unknown: {listed(unknown)}. Where paths "
                "repeat, the second is named 'path 1'. Keras may name the variables of "
                "a loaded model otherwise: export again from where they come from."
            )
        return {
            name: _array(argument, entry, arrays[name], bucket.dtype)
            for name, (entry, bucket) in entries.items()
        }

    def _checked_iterations(self, iterations: Any, state: Any) -> int:
        fresh = isinstance(state, str) and state == "fresh"
        if iterations is None:
            return 0 if fresh else self.manifest.iterations
        known = isinstance(iterations, int | np.integer)
        if not known or isinstance(iterations, bool) or iterations < 0:
            raise ValueError(
                "`iterations` must be a whole number of at least 0, what "
                f"`runner.iterations` was; received {iterations!r:.60}."
            )
        if fresh and iterations:
            raise ValueError(
                "`state` 'fresh' starts at step 1; received "
                f"iterations={iterations}. Pass the state of then, or leave it out."
            )
        return int(iterations)

    def _checked_state(self, state: Any) -> dict[str, dict[str, np.ndarray]]:
        """The state as `{kind: {name: array}}`; nothing for a fresh start."""
        if state == "fresh" or (state is None and self.manifest.iterations == 0):
            return {}
        if state is not None and not isinstance(state, Mapping):
            raise TypeError(
                "`state` must be a dictionary as variable_values returns it, 'fresh', "
                f"or None; received {state!r:.60}."
            )
        if state is None:
            raise ValueError(
                f"The optimizer was exported after {self.manifest.iterations} steps, "
                "so it has a state: pass state= as variable_values(optimizer) returns "
                "it, or 'fresh' to start from zeros; received None."
            )
        found: dict[str, dict[str, np.ndarray]] = {}
        for bucket in self.manifest.buckets:
            for kind in state_names(bucket):
                for entry in bucket.variables:
                    array = state.get(entry.name, {}).get(kind)
                    if array is None:
                        raise ValueError(f"`state` has no {kind} of {entry.name!r}.")
                    array = _array("state", entry, array, bucket.dtype)
                    if kind == "velocity" and (array < 0).any():
                        raise ValueError(
                            f"`state` of {entry.name!r} has a negative velocity, which "
                            "is a mean of squares."
                        )
                    found.setdefault(kind, {})[entry.name] = array
        return found


def _array(argument: str, entry: Entry, value: Any, dtype: str) -> np.ndarray:
    described = f"`{argument}` of {entry.name!r}"
    array = as_array(described, value)
    if array.shape != entry.shape:
        raise ValueError(
            f"{described} must have shape {entry.shape}; received {array.shape}."
        )
    require_no_narrowing(described, array, dtype)
    return array
