"""One step of Muon as an ONNX graph: momentum, Newton-Schulz and decay.

Every read of a parameter or state comes before the write of its new value, so a runtime
may be given one buffer for both.
"""

from collections.abc import Sequence

import onnx

from keras_muon.export.arguments import (
    DEFAULT_OPSET,
    Extent,
    checked_opset,
    checked_shape,
)
from keras_muon.export.iteration import Iteration
from keras_muon.export.newton_schulz_graph import record_newton_schulz
from keras_muon.export.recorder import Recorder
from keras_muon.export.step_ports import MUON_STATE, StepPorts
from keras_muon.messages import require_flag, require_number
from keras_muon.momentum import decayed_step, nesterov_update
from keras_muon.scaling import ADAMW_RMS, get_scaling
from keras_muon.schedules import Schedule

FORMULA = """\
M <- {momentum} M + G;  U = {update};  O = polar factor of U;
W <- (1 - learning_rate * weight_decay) W - learning_rate * {scale} O.
W is `parameter`, G `gradient`, M `momentum`. The polar factor:
{polar_factor}"""


def muon_step(
    shape: Sequence[int],
    *,
    batch: Extent | None = None,
    momentum: float = 0.9,
    nesterov: bool = True,
    scaling: str = "moonlight",
    rms: float = ADAMW_RMS,
    schedule: str | dict | Schedule = "auto",
    steps: int | None = None,
    method: str = "planned",
    dtype: str = "float32",
    emulate: str | None = None,
    opset: int = DEFAULT_OPSET,
) -> onnx.ModelProto:
    """Return a graph that moves hidden matrices by one Muon step.

    Inputs are `parameter`, `gradient`, `momentum` and the scalars `learning_rate` and
    `weight_decay`; outputs are `new_parameter` and `new_momentum`. An output may be
    bound to the buffer of the input that it replaces.

    Args:
        shape: The extents of a matrix, (in, out).
        batch: How many matrices are stacked on a first axis, or a name for an unknown
            number. None is one matrix without that axis.
        momentum: Decay of the momentum per step, in [0, 1).
        nesterov: Whether to look one step ahead.
        scaling: How the step depends on the shape, as in `keras_muon.Muon`.
        rms: Root mean square per entry of a moonlight update, dimensionless.
        schedule: A name in `keras_muon.SCHEDULES`, or a `keras_muon.Schedule`.
        steps: Number of Newton-Schulz steps. None takes the schedule's own number.
        method: `"planned"` as `keras_muon.Muon`, or `"standard"`: see `newton_schulz`.
        dtype: `"float32"` or `"float64"`.
        emulate: `"bfloat16"` or `"float16"`: round every product to it and back.
        opset: Version of the standard operators, 18 to 26.

    Returns:
        The model, checked.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is unknown or out of range.

    Example:
        >>> [value.name for value in muon_step((64, 128)).graph.output]
        ['new_parameter', 'new_momentum']

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025,
    arXiv:2502.16982.
    """
    extents = checked_shape(shape, batch)
    momentum = require_number("momentum", momentum, below=1.0)
    require_flag("nesterov", nesterov)
    scale = get_scaling(scaling, rms=rms)(int(extents.fan_in), int(extents.fan_out))
    iteration = Iteration.checked(
        extents, schedule, steps, method=method, dtype=dtype, emulate=emulate
    )
    opset = checked_opset(opset)

    recorder = Recorder(stacked=batch is not None, scope="momentum")
    ports = StepPorts.create(recorder, iteration.dtype, extents.extents, MUON_STATE)
    update, new_momentum = nesterov_update(
        ports.gradient, *ports.state, momentum=momentum, nesterov=nesterov
    )
    factor = record_newton_schulz(recorder, update, iteration)
    recorder.scope = "parameter"
    rate = ports.learning_rate
    kept = 1.0 - rate * ports.weight_decay
    new_parameter = decayed_step(ports.parameter, factor * (rate * scale), kept)
    return ports.finish(
        recorder,
        [new_parameter, new_momentum],
        MUON_STATE,
        name="muon_step",
        opset=opset,
        doc_string=FORMULA.format(
            momentum=momentum,
            update=f"G + {momentum} M" if nesterov else "M",
            scale=scale,
            polar_factor=iteration.formula,
        ),
        specification={
            "kind": "muon_step",
            **iteration.specification,
            "momentum": momentum,
            "nesterov": nesterov,
            "scaling": scaling,
            "rms": float(rms),
            "opset": opset,
        },
    )
