"""What holds for every matrix: symmetries, independence, zero, any scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import ops
from oracle import polar_by_svd

from keras_muon import SCHEDULES, orthogonalize

TRIPLES = SCHEDULES["you"].take()

# Few shapes, so that JAX compiles few programs; entries from 1e-3 to 1e3 with many
# zeros, so that rows vanish and ranks fall.
SHAPES = ((4, 6), (6, 4))
ENTRIES = st.one_of(st.just(0.0), st.floats(-1e3, 1e3, width=32, allow_subnormal=False))
MATRICES = st.sampled_from(SHAPES).flatmap(
    lambda shape: arrays.arrays("float32", shape, elements=ENTRIES)
)
PAIRS = arrays.arrays("float32", (2, 4, 6), elements=ENTRIES)

every_matrix = settings(max_examples=40, deadline=None, derandomize=True)


def orthogonalized(x):
    return ops.convert_to_numpy(orthogonalize(x))


@every_matrix
@given(MATRICES)
def test_every_matrix_gets_the_polynomial_of_its_singular_values(x):
    """Whatever its rank and condition, in float32."""
    # Largest error seen 1.1e-6; one step fewer is off by 0.19, see test_orthogonalize.
    np.testing.assert_allclose(orthogonalized(x), polar_by_svd(x, TRIPLES), atol=1e-4)


@every_matrix
@given(MATRICES)
def test_transposing_commutes(x):
    """f(G^T) = f(G)^T: in and out are alike, on either side of the iteration."""
    # Largest difference seen 1.1e-6; rows normed instead of matrices are off by 0.1.
    np.testing.assert_allclose(
        orthogonalized(np.ascontiguousarray(x.T)), orthogonalized(x).T, atol=1e-4
    )


@every_matrix
@given(MATRICES)
def test_signs_commute(x):
    """f(-G) = -f(G), to the last bit: every step is odd."""
    np.testing.assert_array_equal(orthogonalized(-x), -orthogonalized(x))


@every_matrix
@given(PAIRS)
def test_a_stack_is_its_matrices(pair):
    """f of a stack is the stack of f, however different the two are."""
    stacked = orthogonalized(pair)
    for matrix, single in zip(stacked, pair, strict=True):
        # Largest difference seen 5.6e-6; a norm over the stack is off by 0.1.
        np.testing.assert_allclose(matrix, orthogonalized(single), atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(4, 6), (2, 4, 6)], ids=str)
def test_zero_gives_zero(shape, dtype):
    """A parameter without a gradient does not move, and nothing is 0 / 0."""
    result = orthogonalize(ops.zeros(shape, dtype))
    assert not ops.convert_to_numpy(ops.cast(result, "float32")).any()


def test_zero_beside_other_matrices_stays_zero(rng):
    """In a stack, one zero matrix changes nothing for its neighbours."""
    x = rng.standard_normal((3, 4, 6)).astype("float32")
    x[1] = 0.0
    result = orthogonalized(x)
    assert not result[1].any()
    # Largest error seen 4.6e-7; a norm over the stack is off by 0.1.
    np.testing.assert_allclose(result, polar_by_svd(x, TRIPLES), atol=1e-4)


POWERS = (-30, -25, -20, -12, -8, -4, 4, 8, 12, 20, 25, 30)


def by_fixed_epsilon(x):
    """What a division by norm + 1e-7 makes of a matrix: the rule of the references."""
    x = x.astype("float64")
    norm = np.linalg.norm(x)
    u, s, vt = np.linalg.svd(x / (norm + 1e-7), full_matrices=False)
    for a, b, c in TRIPLES:
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ vt


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (2, 4, 6)], ids=str)
def test_scale_makes_no_difference(rng, shape, power):
    """From 1e-30 to 1e30 the result is the same, in float32."""
    x = rng.standard_normal(shape).astype("float32")
    scaled = x * np.float32(10.0**power)
    # Largest difference seen 8.4e-7; see the next test for the effect.
    np.testing.assert_allclose(orthogonalized(scaled), orthogonalized(x), atol=1e-4)


@pytest.mark.parametrize("power", [p for p in POWERS if p <= -12])
def test_a_fixed_epsilon_would_make_a_difference(rng, power):
    """Small gradients, divided by their norm + 1e-7, are far from the polar factor."""
    x = rng.standard_normal((4, 6))
    difference = by_fixed_epsilon(x * 10.0**power) - polar_by_svd(x, TRIPLES)
    assert np.abs(difference).max() > 0.5


@pytest.mark.parametrize("power", [-37, -40, -44])
def test_vanishing_matrices_stay_finite(rng, power):
    """Below 1e-30 the update may fade, but it is bounded and never NaN."""
    x = rng.standard_normal((4, 6)).astype("float32") * np.float32(10.0**power)
    assert np.abs(orthogonalized(x)).max() < 1.2


@pytest.mark.parametrize("largest", [1.0, 6e4, 65504.0, 1e-6], ids=str)
@pytest.mark.parametrize("shape", [(4, 6), (6, 4)], ids=str)
def test_float16_gradients_near_the_ends_of_their_range(rng, shape, largest):
    """Squares of 6e4 overflow in float16, those of 1e-6 vanish: not here."""
    x = rng.uniform(-largest, largest, shape).astype("float16")
    x.flat[0] = largest
    with np.errstate(over="ignore", under="ignore"):
        assert np.isinf((x * x).sum()) == (largest > 1e4)
    result = ops.convert_to_numpy(ops.cast(orthogonalize(x), "float32"))
    # Largest error seen 2.4e-4, the rounding of the result; zeros are off by 0.5.
    np.testing.assert_allclose(result, polar_by_svd(x, TRIPLES), atol=5e-4)
