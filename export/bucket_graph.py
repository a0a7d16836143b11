"""The graph that moves one bucket of an optimizer's variables."""

from collections.abc import Sequence
from typing import Any

import onnx

from keras_muon.export.adamw_step_graph import adamw_step
from keras_muon.export.manifest import Bucket
from keras_muon.export.muon_step_graph import muon_step
from keras_muon.export.refusals import emulation_of

Optimizer = Any


def bucket_graph(
    optimizer: Optimizer, bucket: Bucket, indices: Sequence[int], opset: int
) -> onnx.ModelProto:
    """Return the graph of a bucket, with the optimizer's settings.

    Args:
        optimizer: A built Muon.
        bucket: What the graph moves.
        indices: Indices of the bucket's variables.
        opset: Version of the standard operators.

    Raises:
        ValueError: If the optimizer computes in a dtype that graphs do not express.
    """
    if bucket.rule == "adamw":
        return adamw_step(
            bucket.extents,
            beta_1=optimizer.adam_beta_1,
            beta_2=optimizer.adam_beta_2,
            epsilon=optimizer.adam_epsilon,
            dtype=bucket.dtype,
            opset=opset,
        )
    *batch, fan_in, fan_out = bucket.extents
    # What "auto" means depends on the processor; the plan knows.
    compute_dtype = optimizer.bucket_of(indices).plan.compute_dtype
    return muon_step(
        (fan_in, fan_out),
        batch=batch[0] if batch else None,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        scaling=optimizer.scaling,
        rms=optimizer.rms,
        schedule=optimizer.schedule,
        steps=optimizer.ns_steps,
        method="planned",
        dtype=bucket.dtype,
        emulate=emulation_of(compute_dtype, bucket.dtype),
        opset=opset,
    )
