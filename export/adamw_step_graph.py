"""One step of AdamW as an ONNX graph, for what is not a hidden matrix."""

from collections.abc import Sequence

import onnx

from keras_muon.adamw import (
    AdamWState,
    adamw_direction,
    bias_correction,
    refuse_what_vanishes,
)
from keras_muon.export.arguments import (
    DEFAULT_OPSET,
    checked_dtype,
    checked_extents,
    checked_opset,
)
from keras_muon.export.recorder import Recorder
from keras_muon.export.step_ports import ADAMW_STATE, StepPorts
from keras_muon.messages import require_number
from keras_muon.momentum import decayed_step

FORMULA = """\
M <- M + (1 - {beta_1}) (G - M);  V <- V + (1 - {beta_2}) (G G - V);
D = M sqrt(1 - {beta_2}^step) / (1 - {beta_1}^step) / (sqrt(V) + {epsilon});
W <- (1 - learning_rate * weight_decay) W - learning_rate D.
W is `parameter`, G `gradient`, M `momentum`, V `velocity`; `step` counts from 1."""


def adamw_step(
    shape: Sequence[int],
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.95,
    epsilon: float = 1e-7,
    dtype: str = "float32",
    opset: int = DEFAULT_OPSET,
) -> onnx.ModelProto:
    """Return a graph that moves a tensor of any rank by one AdamW step.

    Inputs are `parameter`, `gradient`, `momentum`, `velocity`, the scalars
    `learning_rate` and `weight_decay`, and the int64 scalar `step`, the number of this
    step counted from 1. Outputs are `new_parameter`, `new_momentum` and
    `new_velocity`; each may be bound to the buffer of the input that it replaces.

    Args:
        shape: The tensor's extents; () is a scalar.
        beta_1: Decay of the first moment, in [0, 1).
        beta_2: Decay of the second moment, in [0, 1).
        epsilon: Added to the root of the second moment, in units of the gradient.
        dtype: `"float32"` or `"float64"`.
        opset: Version of the standard operators, 18 to 26.

    Returns:
        The model, checked.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is unknown or out of range.

    Example:
        >>> [value.name for value in adamw_step((64,)).graph.output]
        ['new_parameter', 'new_momentum', 'new_velocity']

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, with the bias correction and
    epsilon of Keras' AdamW.
    """
    extents = checked_extents(shape)
    constants = {
        "beta_1": require_number("beta_1", beta_1, below=1.0),
        "beta_2": require_number("beta_2", beta_2, below=1.0),
        "epsilon": require_number("epsilon", epsilon),
    }
    dtype, opset = checked_dtype(dtype), checked_opset(opset)
    refuse_what_vanishes(constants, dtype)

    recorder = Recorder(scope="moments")
    ports = StepPorts.create(recorder, dtype, extents, ADAMW_STATE)
    step = recorder.input("step", "int64")
    betas = {name: constants[name] for name in ("beta_1", "beta_2")}
    direction, new_state = adamw_direction(
        ports.gradient,
        AdamWState(*ports.state),
        bias_correction(recorder.cast(step, dtype), **betas, ops=recorder),
        shares=(1.0 - betas["beta_1"], 1.0 - betas["beta_2"]),
        epsilon=constants["epsilon"],
        ops=recorder,
    )
    recorder.scope = "parameter"
    rate = ports.learning_rate
    kept = 1.0 - rate * ports.weight_decay
    new_parameter = decayed_step(ports.parameter, rate * direction, kept)
    return ports.finish(
        recorder,
        [new_parameter, *new_state],
        ADAMW_STATE,
        others=[step],
        name="adamw_step",
        opset=opset,
        doc_string=FORMULA.format(**constants),
        specification={
            "kind": "adamw_step",
            "shape": list(extents),
            **constants,
            "dtype": dtype,
            "opset": opset,
        },
    )
