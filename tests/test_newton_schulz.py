"""The iteration on a carrier of its own: NumPy in float64, every product counted."""

import itertools

import numpy as np
import pytest
from numpy_carrier import NumpyOps
from oracle import polar_by_svd

from keras_muon import SCHEDULES, Schedule
from keras_muon.newton_schulz import newton_schulz, normalized
from keras_muon.plan import Plan

PRODUCTS = ("applied", "gram", "symmetric")

SHAPES = {
    "wide": (6, 10),
    "tall": (10, 6),
    "square": (8, 8),
    "row": (1, 7),
    "column": (7, 1),
    "stack": (3, 6, 10),
    "stack_of_stacks": (2, 3, 10, 6),
}


def by_numpy(x, triples, dtype="float64", segments=None):
    """NS of an array, and the list of what was asked of the carrier.

    `segments` says how many steps share each Gram matrix; by default none do.
    """
    ops = NumpyOps()
    starts = np.cumsum([0, *(segments or [1] * len(triples))])
    cut = tuple(triples[i:j] for i, j in itertools.pairwise(starts))
    return newton_schulz(x, Plan(*x.shape[-2:], cut, dtype), ops), ops.called


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_matrix_products_equal_the_polynomial_on_singular_values(rng, name, shape):
    """The iteration is U p(S) V^T, to the last digits of float64."""
    x = rng.standard_normal(shape)
    triples = SCHEDULES[name].take()
    result, _ = by_numpy(x, triples)
    # Largest error seen 2.6e-14; see the next test for the size of the effects.
    np.testing.assert_allclose(result, polar_by_svd(x, triples), rtol=0, atol=1e-12)


def with_spectrum(rng, singular_values):
    """A square matrix of given singular values and random singular vectors."""
    size = len(singular_values)
    u, _ = np.linalg.qr(rng.standard_normal((size, size)))
    v, _ = np.linalg.qr(rng.standard_normal((size, size)))
    return (u * singular_values) @ v.T


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_comparison_notices_every_step(rng, name):
    """One step fewer, or two in another order, is far from the oracle."""
    x = with_spectrum(rng, np.geomspace(1.0, 1e-3, 8))
    triples = SCHEDULES[name].take()
    expected = polar_by_svd(x, triples)
    assert np.abs(by_numpy(x, triples[:-1])[0] - expected).max() > 1e-2
    if len(set(triples)) > 1:
        swapped = (triples[1], triples[0], *triples[2:])
        assert np.abs(by_numpy(x, swapped)[0] - expected).max() > 1e-2


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_products_are_on_the_short_side(rng, shape):
    """Every Gram matrix is as small as it can be: no transposed copies, no waste."""
    _, called = by_numpy(rng.standard_normal(shape), SCHEDULES["you"].take())
    short = min(shape[-2:])
    assert [size for verb, size in called if verb == "gram"] == [short] * 5
    assert [size for verb, size in called if verb == "symmetric"] == [short] * 5
    applied = [size for verb, size in called if verb == "applied"]
    assert applied == [shape[-2:]] * 5


@pytest.mark.parametrize(("name", "products"), [("quintic", 3), ("cubic", 2)])
def test_a_cubic_step_saves_a_product(rng, name, products):
    """Three products per quintic step, two where c is zero."""
    _, called = by_numpy(rng.standard_normal((4, 9)), SCHEDULES[name].take(4))
    verbs = [verb for verb, _ in called]
    count = sum(verbs.count(verb) for verb in PRODUCTS)
    assert count == 4 * products


@pytest.mark.parametrize("segments", [[5], [3, 2], [1, 4], [2, 1, 2]], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_steps_that_share_a_gram_matrix_change_nothing(rng, shape, segments):
    """However the steps are grouped, they are the same polynomial."""
    x = rng.standard_normal(shape)
    triples = SCHEDULES["you"].take()
    result, called = by_numpy(x, triples, segments=segments)
    # Largest error seen 3e-13; a triple left out is off by more than 1e-2 (above).
    np.testing.assert_allclose(result, polar_by_svd(x, triples), rtol=0, atol=1e-11)
    assert [verb for verb, _ in called].count("gram") == len(segments)


def test_cubic_steps_share_a_gram_matrix(rng):
    """A zero c saves its product inside a segment too."""
    triples = SCHEDULES["cubic"].take(4)
    x = rng.standard_normal((5, 12))
    result, called = by_numpy(x, triples, segments=[2, 2])
    np.testing.assert_allclose(result, polar_by_svd(x, triples), rtol=0, atol=1e-13)
    verbs = [verb for verb, _ in called]
    # Per segment: two for the next Gram matrix, one for the product of the factors.
    assert verbs.count("symmetric") == 2 * 3


def test_cubic_and_quintic_steps_mix(rng):
    """A zero in one triple changes that step alone."""
    triples = Schedule(((2.0, -1.5, 0.5), (1.5, -0.5, 0.0), (2.0, -1.5, 0.5))).take()
    x = rng.standard_normal((5, 8))
    result, _ = by_numpy(x, triples)
    # Largest error seen 2.3e-15; the steps in another order are off by 3e-4.
    np.testing.assert_allclose(result, polar_by_svd(x, triples), rtol=0, atol=1e-13)


def test_the_norm_is_taken_before_the_cast(rng):
    """The division happens in the dtype of the input, then comes the narrow one."""
    x = rng.standard_normal((4, 6)).astype("float32")
    result, called = by_numpy(x, SCHEDULES["you"].take(1), dtype="float16")
    assert result.dtype == np.float16
    asked = [call for call in called if call[0] not in PRODUCTS]
    assert asked == [
        ("largest_entry", "float32"),
        ("at_least", 2.0**-126),
        ("divided", ("float32", "float32")),
        ("frobenius_norm", "float32"),
        ("at_least", 0.5),
        ("divided", ("float32", "float16")),
    ]


@pytest.mark.parametrize("power", [-37, -30, -8, 0, 8, 20, 38])
def test_normalized_has_norm_one_at_every_scale(rng, power):
    """Squares neither overflow nor vanish in float32, whose range ends at 3e38."""
    x = rng.uniform(0.1, 1.0, (5, 7)).astype("float32") * np.float32(10.0**power)
    norm = np.linalg.norm(normalized(x, NumpyOps(), "float64"))
    # Largest error seen 6e-8; without the first division it is 0 or not finite.
    assert norm == pytest.approx(1.0, abs=1e-6)
    with np.errstate(over="ignore", under="ignore"):
        naive = np.sqrt((x * x).sum())
    assert (np.isfinite(naive) and naive > 0) == (abs(power) <= 8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_zero_gives_zero_without_a_warning(shape, dtype):
    """No 0 / 0 on the way: NumPy's warnings are errors here."""
    result, _ = by_numpy(np.zeros(shape, dtype), SCHEDULES["jordan"].take(), dtype)
    assert not result.any()
    assert result.shape == shape


def test_matrices_of_a_stack_do_not_see_each_other(rng):
    """Each has its own norm: one may be zero and another enormous."""
    x = rng.standard_normal((3, 4, 6))
    x[1] = 0.0
    x[2] *= 1e30
    triples = SCHEDULES["you"].take()
    result, _ = by_numpy(x, triples)
    for matrix, single in zip(result, x, strict=True):
        # No difference seen; one norm for all gives zeros and is off by 0.79.
        np.testing.assert_allclose(matrix, by_numpy(single, triples)[0], atol=1e-13)
    assert not result[1].any()
