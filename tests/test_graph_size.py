"""A step of Muon is a small graph: equal matrices share the operations of a stack."""

import keras
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from keras_muon import Muon

# What 24 transformer blocks of width 128 hold: 144 hidden matrices of three shapes.
BLOCKS = 24
BLOCK = [(128, 128)] * 4 + [(128, 512), (512, 128)]

ROUTES = {".*": "muon"}


def size_of_a_step(optimizer, blocks, block=BLOCK):
    """The number of operations in one step of an optimizer, traced and not run."""
    variables = [
        keras.Variable(np.zeros(shape, "float32"), name=f"kernel_{number}_{place}")
        for number in range(blocks)
        for place, shape in enumerate(block)
    ]
    optimizer.build(variables)
    return SIZES[keras.backend.backend()](optimizer, variables)


def lines_of_stablehlo(optimizer, variables):
    import jax

    arguments = [
        [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in group]
        for group in (optimizer.variables, variables, variables)
    ]
    lowered = jax.jit(optimizer.stateless_apply).lower(*arguments)
    return len(lowered.as_text().splitlines())


def nodes_of_a_function(optimizer, variables):
    import tensorflow as tf

    gradients = [tf.TensorSpec(v.shape, v.dtype) for v in variables]
    step = tf.function(lambda now: optimizer.apply(now))
    return len(step.get_concrete_function(gradients).graph.get_operations())


class Counter(TorchDispatchMode):
    """Counts what reaches the kernels of torch: nothing is traced there."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def calls_of_aten(optimizer, variables):
    gradients = [torch.ones_like(v.value) for v in variables]
    with Counter() as counter:
        optimizer.apply(gradients)
    return counter.calls


SIZES = {
    "jax": lines_of_stablehlo,
    "tensorflow": nodes_of_a_function,
    "torch": calls_of_aten,
}


def test_a_step_is_three_times_smaller_than_that_of_keras():
    """144 matrices of three shapes cost nine iterations, of a stack each, not 144.

    Counted with Keras 3.15.1 and its Muon: 15911 lines of StableHLO, 15992 nodes of
    TensorFlow, 10131 calls of ATen.
    """
    ours = size_of_a_step(Muon(routes=ROUTES), BLOCKS)
    theirs = size_of_a_step(keras.optimizers.Muon(), BLOCKS)
    assert theirs >= 3 * ours, f"{theirs} against {ours}, {theirs / ours:.2f} times"


def test_variables_of_adamw_share_what_is_one_for_all():
    """A hundred gains have one rate, one decay and one correction of the bias.

    Counted with Keras 3.15.1 and its AdamW: 3907 lines of StableHLO, 4708 nodes of
    TensorFlow; with all of it for each gain ours are 5008 nodes. On torch both step all
    of them at once, by 29 calls of ATen.
    """
    ours = size_of_a_step(Muon(routes={".*": "adamw"}), 50, block=[(128,), (64,)])
    theirs = size_of_a_step(keras.optimizers.AdamW(), 50, block=[(128,), (64,)])
    share = 1.0 if keras.backend.backend() == "torch" else 0.75
    assert ours <= share * theirs, f"{ours} against {theirs}"


def test_without_stacks_a_step_is_about_as_large():
    """The comparison can fail: it is stacking that makes the step small."""
    ours = size_of_a_step(Muon(routes=ROUTES, batched=False), blocks=1)
    theirs = size_of_a_step(keras.optimizers.Muon(), blocks=1)
    assert theirs < 2 * ours, f"{theirs} against {ours}, {theirs / ours:.2f} times"
