"""Steps too small for a 16-bit weight add up to what a float32 weight does.

Gradients that do not depend on the weights make the run in float32 an exact oracle: the
narrow weight is the float32 weight, rounded once.
"""

import keras
import numpy as np
import pytest

from keras_muon import Muon

# Of numbers in [1, 2): the distance from one to the next.
SPACING = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
STEPS = 40
ROUTES = {".*kernel": "muon"}
WIDTH = 8

narrow = pytest.mark.parametrize("dtype", SPACING)


def rate(dtype):
    """A step moves an entry by a tenth of the spacing: rounding takes it back."""
    return SPACING[dtype] / 10


def start():
    """A kernel and a bias in [1.25, 1.75), multiples of 1/64, and their directions."""
    numbers = np.random.default_rng(7)
    kernel = 1.25 + numbers.integers(0, 32, (WIDTH, WIDTH)) / 64
    bias = 1.25 + numbers.integers(0, 32, WIDTH) / 64
    return kernel.astype("float32"), bias.astype("float32")


def targets():
    """Multipliers of the outputs: gradients of them are exact in every dtype."""
    numbers = np.random.default_rng(8)
    x = 2.0 * np.eye(WIDTH)
    y = numbers.choice([-2.0, -1.0, 1.0, 2.0], (WIDTH, WIDTH))
    return x.astype("float32"), y.astype("float32")


def new_model(dtype, **arguments):
    """A linear layer whose loss is linear too, so that gradients are constant."""
    layer = keras.layers.Dense(WIDTH, dtype=dtype, name="layer", **arguments)
    model = keras.Sequential([keras.Input((WIDTH,), dtype=dtype), layer])
    model.set_weights(start())
    return model


def linear(wanted, predicted):
    return keras.ops.sum(predicted * wanted)


def new_optimizer(dtype):
    # Muon's entries move by about the rate, as those of AdamW do.
    return Muon(rate(dtype), routes=ROUTES, rms=1.0, weight_decay=None)


def fitted(model, optimizer, sign=1.0, steps=STEPS):
    x, y = targets()
    model.compile(optimizer, linear, jit_compile=keras.backend.backend() == "jax")
    model.fit(
        np.tile(x, (steps, 1)),
        np.tile(sign * y, (steps, 1)),
        batch_size=WIDTH,
        shuffle=False,
        verbose=0,
    )


def applied(model, optimizer, sign=1.0, steps=STEPS):
    """The same gradients by hand, without a compiler."""
    x, y = targets()
    gradients = [sign * x.T @ y, sign * y.sum(axis=0)]
    optimizer.build(model.trainable_variables)
    for _ in range(steps):
        optimizer.apply(
            [
                keras.ops.cast(g, v.dtype)
                for g, v in zip(gradients, model.trainable_variables, strict=True)
            ]
        )


HOW = {"fit": fitted, "apply": applied}


def values(model):
    return [
        keras.ops.convert_to_numpy(keras.ops.cast(v, "float32")) for v in model.weights
    ]


def assert_rounded(model, oracle, dtype, spacings=0.5):
    """Each weight is the oracle's, rounded to its dtype: half a spacing off at most.

    A rate is a tenth of the spacing, 100 times the margin for sums in float32.
    """
    tolerance = spacings * SPACING[dtype] + 1e-6
    for value, expected in zip(values(model), values(oracle), strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("how", HOW)
@narrow
def test_small_steps_add_up(dtype, how):
    """Muon's and AdamW's variables end where float32 variables do."""
    model, oracle = new_model(dtype), new_model("float32")
    for trained in (model, oracle):
        HOW[how](trained, new_optimizer(dtype))
    assert_rounded(model, oracle, dtype)
    for value, first in zip(values(model), start(), strict=True):
        # Rounded after every step, no entry would move; the median moves by three.
        assert np.median(np.abs(value - first)) > 2 * SPACING[dtype]


@narrow
def test_a_single_step_is_lost_in_the_weight(dtype):
    """The effect exists: after one step the weight itself has not moved."""
    model = new_model(dtype)
    applied(model, new_optimizer(dtype), steps=1)
    for value, first in zip(values(model), start(), strict=True):
        np.testing.assert_array_equal(value, first)


def assigned(model, _):
    model.set_weights([weight + 0.125 for weight in start()])


def loaded(model, folder):
    other = new_model(model.dtype)
    assigned(other, folder)
    other.save_weights(folder / "other.weights.h5")
    # Keras says that this file has no state for the optimizer.
    model.load_weights(folder / "other.weights.h5")


@pytest.mark.filterwarnings("ignore:Skipping:UserWarning")
@pytest.mark.parametrize("change", [assigned, loaded])
@narrow
def test_what_is_written_from_outside_wins(change, dtype, tmp_path):
    """The master copy is stale then: the next step starts from the new weight."""
    model, oracle = new_model(dtype), new_model("float32")
    for trained in (model, oracle):
        optimizer = new_optimizer(dtype)
        applied(trained, optimizer, steps=10)
        change(trained, tmp_path)
        applied(trained, optimizer, steps=10)
    assert_rounded(model, oracle, dtype)
    untouched = new_model(dtype)
    applied(untouched, new_optimizer(dtype), steps=20)
    pairs = zip(values(model), values(untouched), strict=True)
    assert min(np.abs(a - b).min() for a, b in pairs) > 4 * SPACING[dtype]


class Fence(keras.constraints.Constraint):
    """Keeps entries between two numbers that every dtype holds."""

    def __call__(self, w):
        return keras.ops.clip(w, 1.3125, 1.6875)


@pytest.mark.parametrize("how", HOW)
@narrow
def test_constraints_win(dtype, how):
    """Entries at the fence come back with the first steps away from it.

    There a master may be outside by what rounds to the fence, half a spacing: an entry
    is 0.88 off at most. A master that stayed where the fence found it, at 1.25, would
    keep its entry at the fence while others move on by three spacings and more.
    """
    fences = {"kernel_constraint": Fence(), "bias_constraint": Fence()}
    model, oracle = new_model(dtype, **fences), new_model("float32", **fences)
    for trained in (model, oracle):
        optimizer = new_optimizer(dtype)
        HOW[how](trained, optimizer, steps=10)
        HOW[how](trained, optimizer, sign=-1.0, steps=30)
    assert any((value == 1.3125).any() for value in values(oracle))
    assert_rounded(model, oracle, dtype, spacings=1.0)


@narrow
def test_the_copies_are_saved(dtype, tmp_path):
    """What has added up below the rounding survives a file."""
    model, oracle = new_model(dtype), new_model("float32")
    fitted(model, new_optimizer(dtype), steps=3)
    model.compile(model.optimizer, keras.losses.MeanSquaredError())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    fitted(loaded, loaded.optimizer, steps=4)
    fitted(oracle, new_optimizer(dtype), steps=7)
    assert_rounded(loaded, oracle, dtype)
