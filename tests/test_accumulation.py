"""`gradient_accumulation_steps`: one step of Muon per cycle, with the mean gradient."""

import keras
import numpy as np
import pytest

from keras_muon import Muon

SHAPES = {"first": (6, 4), "second": (6, 4), "gain": (5,)}
ROUTES = {"first": "muon", "second": "muon", "gain": "adamw"}
CYCLE = 3
CYCLES = 3

HALVED = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)

# Largest error seen: 4.8e-7 on JAX, 2.4e-7 on torch and TensorFlow. What the tests
# tell apart differs by 0.04 and more.
TOLERANCE = 1e-5


@pytest.fixture
def gradients(rng):
    """Gradients of all calls, of different size within and between the cycles."""
    scales = (1.0, 8.0, 0.3, 9.0, 40.0, 5.0, 0.1, 0.2, 0.5)
    return [[s * rng.standard_normal(n) for n in SHAPES.values()] for s in scales]


def means(gradients):
    """The mean gradient of each cycle."""
    cycles = [gradients[i : i + CYCLE] for i in range(0, len(gradients), CYCLE)]
    return [[np.mean(g, axis=0) for g in zip(*c, strict=True)] for c in cycles]


def history(gradients, learning_rate=0.1, rates=(), **arguments):
    """Return all weights in one row per call, the start in the first row."""
    numbers = np.random.default_rng(3)
    variables = [
        keras.Variable(numbers.standard_normal(shape), name=name, dtype="float32")
        for name, shape in SHAPES.items()
    ]
    optimizer = Muon(learning_rate, routes=ROUTES, ns_steps=2, **arguments)
    optimizer.build(variables)
    step = compiled_step(optimizer, variables) if arguments else optimizer.apply
    rows = [flat(variables)]
    for number, values in enumerate(gradients):
        if rates:
            optimizer.learning_rate = rates[number]
        step([keras.ops.cast(g, "float32") for g in values])
        rows.append(flat(variables))
    return np.stack(rows)


def compiled_step(optimizer, variables):
    """Return `apply`; on JAX compiled, where eager branches compile at every call."""
    if keras.backend.backend() != "jax":
        return optimizer.apply
    import jax

    compiled = jax.jit(optimizer.stateless_apply)

    def step(gradients):
        state = optimizer.variables
        values = compiled(
            [v.value for v in state], gradients, [v.value for v in variables]
        )
        kept = [*variables, *state]
        for variable, value in zip(kept, [*values[0], *values[1]], strict=True):
            variable.assign(value)

    return step


def flat(variables):
    return np.concatenate([keras.ops.convert_to_numpy(v).ravel() for v in variables])


def test_a_cycle_is_one_step_with_the_mean(gradients):
    """After every whole cycle the weights are those of the mean gradients."""
    accumulated = history(gradients, gradient_accumulation_steps=CYCLE)
    expected = history(means(gradients))
    np.testing.assert_allclose(accumulated[::CYCLE], expected, rtol=0, atol=TOLERANCE)


def test_nothing_moves_within_a_cycle(gradients):
    """The weights change at the last call of a cycle, and at no other."""
    rows = history(gradients, gradient_accumulation_steps=CYCLE)
    moved = np.abs(np.diff(rows, axis=0)).max(axis=1) > 0.01
    still = (np.diff(rows, axis=0) == 0).all(axis=1)
    wanted = np.arange(1, len(rows)) % CYCLE == 0
    np.testing.assert_array_equal(moved, wanted)
    np.testing.assert_array_equal(still, ~wanted)


def test_the_sum_of_a_cycle_would_be_seen(gradients):
    """The comparison can fail: other cycles, or no cycles, end elsewhere."""
    expected = history(means(gradients))[-1]
    shifted = history(means(gradients[1:] + gradients[:1]))[-1]
    each = history(gradients)[-1]
    assert np.abs(expected - shifted).max() > 1000 * TOLERANCE
    assert np.abs(expected - each).max() > 1000 * TOLERANCE


@pytest.mark.parametrize("argument", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clipping_sees_the_mean(argument, gradients):
    """Clipping acts on the mean gradient of a cycle, not on each gradient."""
    clip = {argument: 1.0}
    accumulated = history(gradients, gradient_accumulation_steps=CYCLE, **clip)
    expected = history(means(gradients), **clip)
    np.testing.assert_allclose(accumulated[::CYCLE], expected, rtol=0, atol=TOLERANCE)
    unclipped = history(means(gradients))
    assert np.abs(expected - unclipped).max() > 1000 * TOLERANCE


@pytest.mark.parametrize("argument", ["learning_rate", "adam_learning_rate"])
def test_schedules_count_calls(argument, gradients):
    """As Keras says, a schedule counts calls: a step takes the rate of its last one."""
    rates = [0.1 * 0.5**call for call in range(CYCLE - 1, len(gradients), CYCLE)]
    accumulated = history(
        gradients, gradient_accumulation_steps=CYCLE, **{argument: HALVED}
    )[-1]
    hand_rated = history(means(gradients), rates=rates)[-1]
    constant = history(means(gradients))[-1]
    gain = SHAPES["gain"][0]
    matrices = hand_rated if argument == "learning_rate" else constant
    expected = np.concatenate([matrices[:-gain], hand_rated[-gain:]])
    np.testing.assert_allclose(accumulated, expected, rtol=0, atol=TOLERANCE)
    assert np.abs(hand_rated - constant)[-gain:].max() > 1000 * TOLERANCE


def test_bias_correction_counts_steps(gradients):
    """The first step of AdamW has its full length, whichever call it happens in.

    After one step both moments are those of one gradient, and their corrected quotient
    is its sign. A correction for three steps would make it 0.62 of that.
    """
    rows = history(
        gradients[:CYCLE], gradient_accumulation_steps=CYCLE, weight_decay=None
    )
    signs = np.sign(means(gradients)[0][-1])
    change = (rows[-1] - rows[0])[-len(signs) :]
    # Largest error seen: 3.3e-7; a factor of 0.62 would be an error of 0.04.
    np.testing.assert_allclose(change, -0.1 * signs, rtol=0, atol=1e-5)
