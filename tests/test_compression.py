"""Large matrices: leading singular values are compressed, then come three steps."""

import contextlib

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops
from numpy_carrier import NumpyOps
from oracle import polar_after_compression, polar_by_svd

from keras_muon import SCHEDULES, minimax_schedule, orthogonalize, planning
from keras_muon.compression import compressed
from keras_muon.plan_choice import plan_for


def rounded(triples):
    """Triples of which b and c are numbers of bfloat16, with the same sums."""
    table = np.array(triples)
    inner = table[:, 1:].astype(ml_dtypes.bfloat16).astype("float64")
    first = table.sum(1) - inner.sum(1)
    return tuple(zip(first, *inner.T, strict=True))


# What the oracle is told: steps, those of the basis, those of the leading values, and
# the smallest rest.
SETTINGS = (
    minimax_schedule(0.015, 3).take(),
    rounded(minimax_schedule(0.005, 6).take()),
    rounded(minimax_schedule(0.08, 2).take()),
    1e-3,
)
SHAPES = {
    "wide": (384, 400),
    "larger": (528, 512),
    "tall": (400, 384),
    "square": (384, 384),
    "long": (384, 1600),  # its steps share a Gram matrix
    "stack": (2, 384, 400),
}
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)

# Largest error seen 4.1e-6, on any backend; for the effects see below.
TOLERANCE = 2e-5


def keeping_float64():
    """Where float64 lives: everywhere, on JAX inside this context."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True)


def with_leading(rng, shape):
    """Normal noise, and 20 directions of up to 100 times its singular values."""
    *stack, fan_in, fan_out = shape
    left = rng.standard_normal((*stack, fan_in, 20)) * np.geomspace(10, 0.3, 20)
    right = rng.standard_normal((*stack, 20, fan_out))
    return left @ right + rng.standard_normal(shape)


def result_of(x, *arguments, **others):
    """The result as float64 NumPy, whatever its dtype."""
    result = orthogonalize(x, *arguments, **others)
    assert keras.backend.standardize_dtype(result.dtype) == x.dtype.name
    return ops.convert_to_numpy(result).astype("float64")


@EVERY_SHAPE
@pytest.mark.parametrize("stacked", [False, True], ids=["one by one", "stacked"])
def test_the_result_is_that_of_singular_values(rng, monkeypatch, shape, stacked):
    """In float32, one matrix after the other as on CPUs, and together."""
    monkeypatch.setattr(planning, "runs_on_accelerator", lambda: stacked)
    x = with_leading(rng, shape).astype("float32")
    expected = polar_after_compression(x, *SETTINGS)
    assert np.abs(result_of(x) - expected).max() < TOLERANCE


@EVERY_SHAPE
def test_float64_stays_float64(rng, shape):
    """Every product and every norm: a float32 anywhere is off by 1e-8 and more."""
    x = with_leading(rng, shape)
    with keeping_float64():
        result = result_of(x)
    # Largest error seen 1.1e-14.
    assert np.abs(result - polar_after_compression(x, *SETTINGS)).max() < 1e-12


def altered(x):
    """Oracles that do something else, by what it is."""
    steps, basis, values, rest = SETTINGS
    return {
        "no compression": polar_by_svd(x, steps, schatten=8),
        "two steps": polar_after_compression(x, steps[:2], *SETTINGS[1:]),
        "another basis": polar_after_compression(x, steps, basis[:2], values, rest),
        "other values": polar_after_compression(x, steps, basis, values[:1], rest),
        "other signs": polar_after_compression(x[::-1], *SETTINGS)[::-1],
        "another rest": polar_after_compression(x, steps, basis, values, 0.1),
        "five steps of You's": polar_by_svd(x, SCHEDULES["you"].take()),
    }


def test_the_comparison_notices_every_part(rng):
    """Each part of the algorithm, left out or changed, is a hundred tolerances away."""
    x = with_leading(rng, SHAPES["wide"])
    expected = polar_after_compression(x, *SETTINGS)
    distances = {n: np.abs(y - expected).max() for n, y in altered(x).items()}
    # Seen 0.01, by other signs, to 0.16, by no compression.
    assert min(distances.values()) > 100 * TOLERANCE, distances


@pytest.mark.parametrize("power", [-30, -12, 12, 30])
def test_scale_makes_no_difference(rng, power):
    """From 1e-30 to 1e30 the result is the same."""
    x = with_leading(rng, SHAPES["wide"]).astype("float32")
    difference = result_of(x * np.float32(10.0**power)) - result_of(x)
    # Largest difference seen 4.7e-6, from the rounding of the scaled entries.
    assert np.abs(difference).max() < TOLERANCE


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
def test_zero_gives_zero_and_disturbs_nobody(rng, compute_dtype):
    """Alone and in a stack, exactly."""
    x = with_leading(rng, SHAPES["stack"]).astype("float32")
    x[0] = 0.0
    assert not result_of(x[0], compute_dtype=compute_dtype).any()
    result = result_of(x, compute_dtype=compute_dtype)
    assert not result[0].any()
    assert np.isfinite(result[1]).all()
    assert result[1].std() > 0.01


@pytest.mark.parametrize(
    ("name", "tolerance"),
    # Seen 4.2e-6, and for the square 0.016; without compression it is off by 0.15.
    [("wide", TOLERANCE), ("long", TOLERANCE), ("square", 0.05)],
)
def test_transposing_commutes(rng, name, tolerance):
    """f(G^T) = f(G)^T; of a square only nearly, as its rows are mixed either way."""
    x = with_leading(rng, SHAPES[name]).astype("float32")
    turned = result_of(np.ascontiguousarray(x.T)).T
    assert np.abs(turned - result_of(x)).max() < tolerance


def test_a_stack_is_its_matrices(rng):
    """Each has its own basis and its own norms, however different the two are."""
    x = with_leading(rng, SHAPES["stack"]).astype("float32")
    x[1] *= 1e20
    for matrix, single in zip(result_of(x), x, strict=True):
        # Largest difference seen 1e-6.
        assert np.abs(matrix - result_of(single)).max() < TOLERANCE


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((368, 400), {}),
        ((392, 400), {}),
        ((384, 400), {"schedule": "you"}),
        ((384, 400), {"steps": 5}),
    ],
    ids=str,
)
def test_elsewhere_yous_five_steps_are_taken(rng, shape, arguments):
    """On fewer rows, where 16 does not divide, or where it is asked for by name."""
    x = with_leading(rng, shape).astype("float32")
    expected = polar_by_svd(x, SCHEDULES["you"].take())
    # Largest error seen 1.9e-6; compression is off by 0.08 (above).
    assert np.abs(result_of(x, **arguments) - expected).max() < TOLERANCE


def even(x):
    """A matrix of norm 1 after compression, in float64 NumPy."""
    plan = plan_for(*x.shape, SCHEDULES["auto"], "float64")
    return compressed(x, plan.leading, plan.side, NumpyOps(), dtype="float64")


def singular_values(x):
    return np.linalg.svd(x, compute_uv=False)


@pytest.mark.parametrize("shape", [(384, 400), (400, 384)], ids=str)
@pytest.mark.parametrize(
    ("top", "count"), [(10, 20), (30, 20), (100, 5), (1000, 1)], ids=str
)
def test_leading_values_come_down_to_the_size_of_the_rest(rng, shape, top, count):
    """Some values are many times as large as the others, which are equal: no longer.

    Others that are partly in the basis, too, may come out at a quarter.
    """
    u, v = (np.linalg.qr(rng.standard_normal((n, 384)))[0] for n in shape)
    x = (u * np.where(np.arange(384) < count, top, 1.0)) @ v.T
    norm = np.linalg.norm(x)
    after = singular_values(even(x / norm)) * norm
    # Seen 0.28 to 1.23.
    assert 0.25 < after.min() < after.max() < 1.3


def test_a_flat_spectrum_stays(rng):
    """Equal values are hardly moved."""
    q, _ = np.linalg.qr(rng.standard_normal((384, 384)))
    after = singular_values(even(q / 384**0.5)) * 384**0.5
    # Largest difference seen 0.073, which is that of the two steps from 1.
    assert np.abs(after - 1.0).max() < 0.08
