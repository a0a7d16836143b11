"""What steers XLA: values stay, kernels are shared, and buckets wait for each other."""

import contextlib
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_muon import Muon, batching, bucketed_optimizer
from keras_muon.opaque_values import after, is_compiled_on_cpu, opaque_parts
from keras_muon.plan_choice import LARGEST_STACKED_ON_CPU
from keras_muon.waiting import Waiting

COMPILES = keras.backend.backend() in ("jax", "tensorflow")
compiled_only = pytest.mark.skipif(not COMPILES, reason="torch compiles nothing")
jax_only = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="JAX alone tells what XLA planned"
)


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, jit_compile=True)


@compiled_only
@pytest.mark.parametrize("counts", [(1, 1), (1, 3, 2), (2, 1, 1, 1)])
def test_parts_are_those_of_the_stack(rng, counts):
    """Nothing is lost or moved, in compiled graphs and outside of them."""
    stack = rng.normal(size=(sum(counts), 3, 2)).astype("float32")
    tensor = ops.convert_to_tensor(stack)
    for cut in (opaque_parts, compiled(lambda x, _: opaque_parts(x, counts))):
        parts = [ops.convert_to_numpy(part) for part in cut(tensor, counts)]
        assert [len(part) for part in parts] == list(counts)
        np.testing.assert_array_equal(np.concatenate(parts), stack)


@pytest.mark.parametrize("entry", [0.5, np.inf, -np.inf, np.nan])
def test_waiting_changes_no_value(entry):
    """Not even where the variable waited for is not finite."""
    before = keras.Variable(np.full((2, 2), entry, "float32"))
    (same,) = after(before, [ops.convert_to_tensor(np.ones(3, "float32"))])
    np.testing.assert_array_equal(ops.convert_to_numpy(same), np.ones(3))


def test_outside_of_graphs_nothing_is_compiled():
    """Eager steps are in order already, and unstack in one operation."""
    assert not is_compiled_on_cpu(ops.zeros(2))


SHAPES = [(384, 384), (384, 768), (768, 384)]
SMALL_SHAPES = [(64, 64), (64, 128), (128, 64)]


def planned_memory(monkeypatch, layers, in_turn, shapes=SHAPES):
    """Temporary bytes of a step over those of its momenta, as XLA plans them."""
    import jax

    monkeypatch.setattr(batching, "LEAST_STACKED_ON_CPU", 2 * LARGEST_STACKED_ON_CPU)
    if not in_turn:
        monkeypatch.setattr(Waiting, "awaited_by", lambda *_: None)
    variables = [keras.Variable(np.zeros(s, "float32")) for s in shapes * layers]
    optimizer = Muon(routes={".*": "muon"})
    optimizer.build(variables)
    given = [
        [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in group]
        for group in (variables, optimizer.variables, variables)
    ]

    # In the order of the results, by which JAX chooses whose memory they take.
    def step(weights, state, gradients):
        return optimizer.stateless_apply(state, gradients, weights)

    compiled_step = jax.jit(step, donate_argnums=(0, 1)).lower(*given).compile()
    plan = compiled_step.memory_analysis()
    momenta = sum(4 * v.shape[0] * v.shape[1] for v in variables)
    return plan.temp_size_in_bytes / momenta


def loops(accumulated=None):
    """Return how many loops a step on stacks of three shapes has."""
    import jax

    shapes = [(16, 16), (16, 32), (32, 32)] * 4
    variables = [keras.Variable(np.zeros(shape, "float32")) for shape in shapes]
    optimizer = Muon(routes={".*": "muon"}, gradient_accumulation_steps=accumulated)
    optimizer.build(variables)
    assert len(optimizer.plans) == 3
    given = [
        [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in group]
        for group in (optimizer.variables, variables, variables)
    ]
    lowered = jax.jit(optimizer.stateless_apply).lower(*given)
    return lowered.as_text().count("stablehlo.while")


@jax_only
def test_stacks_share_numbers_and_places(monkeypatch):
    """One loop makes the numbers of all, one their places; branches have their own."""
    assert loops() == 2
    assert loops(accumulated=2) == 4
    nothing = contextlib.nullcontext
    monkeypatch.setattr(bucketed_optimizer, "shared_opaque_values", nothing)
    assert loops() == 6


@jax_only
def test_a_step_needs_half_of_the_momenta_for_a_while(monkeypatch):
    """State and temporaries stay below 1.5 times the momenta; 0.43 was planned."""
    assert planned_memory(monkeypatch, layers=8, in_turn=True) < 0.5


@jax_only
def test_small_matrices_need_no_more(monkeypatch):
    """Many of them are several stacks, of which two are there at a time: 0.40."""
    assert planned_memory(monkeypatch, 320, in_turn=True, shapes=SMALL_SHAPES) < 0.5


@jax_only
def test_one_stack_of_small_matrices_would_need_more(monkeypatch):
    """The guard can fail."""
    monkeypatch.setattr(batching, "SHARE_SMALL_STACKED_IN_DEEP_GRAPH", 1.0)
    monkeypatch.setattr(batching, "SHARE_OF_WORK", 1.0)
    assert planned_memory(monkeypatch, 320, in_turn=True, shapes=SMALL_SHAPES) > 2.0


@jax_only
def test_buckets_side_by_side_would_need_more(monkeypatch):
    """The guard can fail: without waiting, all buckets are alive at once."""
    assert planned_memory(monkeypatch, layers=8, in_turn=False) > 0.8


@jax_only
@pytest.mark.parametrize(
    "how", [{"jit_compile": False}, {"run_eagerly": True}], ids=str
)
def test_tensorflow_is_not_asked_to_order_the_buckets_of_jax(monkeypatch, how):
    """A model that Keras does not compile may be traced: by mixed precision here."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    sizes = (300, 310, 320, 4)
    layers = [keras.layers.Dense(size, dtype="mixed_float16") for size in sizes]
    model = keras.Sequential([keras.Input((290,)), *layers])
    optimizer = keras.optimizers.LossScaleOptimizer(Muon(1e-3), initial_scale=1.0)
    model.compile(optimizer, "mse", **how)
    before = model.get_weights()
    model.fit(np.ones((2, 290)), np.ones((2, 4)), verbose=0)
    for weight, old in zip(model.get_weights(), before, strict=True):
        assert np.abs(weight - old).max() > 1e-5
    large = [plan for _, plan in optimizer.inner_optimizer.plans]
    assert len(large) == 3  # Two of them wait for the one before.


tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow alone has the choice"
)


def used_without_xla(monkeypatch, layers, in_turn):
    """Temporary bytes of a step over those of its momenta, counted by TensorFlow."""
    import tensorflow as tf

    monkeypatch.setattr(
        batching, "LEAST_STACKED_WITHOUT_XLA", 2 * LARGEST_STACKED_ON_CPU
    )
    if not in_turn:
        monkeypatch.setattr(Waiting, "awaited_by", lambda *_: None)
    variables = [keras.Variable(np.zeros(s, "float32")) for s in SHAPES * layers]
    optimizer = Muon(routes={".*": "muon"})
    optimizer.build(variables)
    object.__setattr__(optimizer, "may_use_xla", False)
    gradients = [tf.ones(v.shape) for v in variables]
    step = tf.function(lambda: optimizer.apply(gradients))
    for _ in range(2):
        step()
    tf.config.experimental.reset_memory_stats("CPU:0")
    before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    step()
    peak = tf.config.experimental.get_memory_info("CPU:0")["peak"]
    return (peak - before) / sum(4 * v.shape[0] * v.shape[1] for v in variables)


@tensorflow_only
def test_buckets_follow_each_other_without_xla_too(monkeypatch):
    """State and temporaries stay below 1.5 times the momenta."""
    used = used_without_xla(monkeypatch, layers=24, in_turn=True)
    assert used < 0.5, used


@tensorflow_only
def test_buckets_follow_each_other_on_a_single_thread():
    """There TensorFlow puts off what nothing waits for: 1.6 if only the last write is.

    It takes the number of threads when it starts, so the test above has its process.
    """
    test = test_buckets_follow_each_other_without_xla_too.__name__
    run = subprocess.run(
        [sys.executable, "-m", "pytest", f"{__file__}::{test}"],
        env=os.environ | {"TF_NUM_INTEROP_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "1 passed" in run.stdout


@tensorflow_only
def test_without_turns_and_xla_more_is_used(monkeypatch):
    """The guard can fail."""
    used = used_without_xla(monkeypatch, layers=24, in_turn=False)
    assert used > 0.6, used
