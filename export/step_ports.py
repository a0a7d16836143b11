"""The inputs and outputs that the step graphs of both rules share."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import onnx

from keras_muon.export.alias_safety import check_alias_safety
from keras_muon.export.arguments import Extent
from keras_muon.export.finish import Port, finish
from keras_muon.export.graph_writer import Value
from keras_muon.export.recorder import Recorder

# What may share a buffer: each output, and the input that it replaces.
MUON_STATE = {"new_parameter": "parameter", "new_momentum": "momentum"}
ADAMW_STATE = {**MUON_STATE, "new_velocity": "velocity"}


class StepPorts(NamedTuple):
    """The inputs of a step graph.

    Args:
        parameter: The weights W.
        gradient: Their gradient G.
        state: Momentum, and AdamW's velocity.
        learning_rate: The rate of this step, a scalar.
        weight_decay: Share of W removed per step and unit of rate, a scalar.
        extents: The shape of all but the scalars.
    """

    parameter: Value
    gradient: Value
    state: tuple[Value, ...]
    learning_rate: Value
    weight_decay: Value
    extents: tuple[Extent, ...]

    @classmethod
    def create(
        cls,
        recorder: Recorder,
        dtype: str,
        extents: tuple[Extent, ...],
        state: Mapping[str, str],
    ) -> "StepPorts":
        """Return the inputs for a rule with the given state."""
        parameter, *kept = (recorder.input(name, dtype) for name in state.values())
        gradient, learning_rate, weight_decay = (
            recorder.input(name, dtype)
            for name in ("gradient", "learning_rate", "weight_decay")
        )
        return cls(
            parameter, gradient, tuple(kept), learning_rate, weight_decay, extents
        )

    def finish(
        self,
        recorder: Recorder,
        results: Sequence[Value],
        state: Mapping[str, str],
        *,
        others: Sequence[Value] = (),
        **about: Any,
    ) -> onnx.ModelProto:
        """Return the checked model whose outputs are `results`, named as in `state`.

        Args:
            recorder: Holds the nodes.
            results: The new values.
            state: The input that each output replaces.
            others: Further scalar inputs.
            **about: The other arguments of `finish`.
        """
        outputs = [
            recorder.output(value, name)
            for value, name in zip(results, state, strict=True)
        ]
        scalars = [self.learning_rate, self.weight_decay, *others]
        tensors = [self.parameter, self.gradient, *self.state]
        model = finish(
            recorder,
            [Port(v, self.extents) for v in tensors] + [Port(v, ()) for v in scalars],
            [Port(value, self.extents) for value in outputs],
            **about,
        )
        check_alias_safety(model, state)
        return model
