"""Constants of compression: signs that mix rows, and steps that make a basis."""

import ml_dtypes
import numpy as np
import pytest
from oracle import random_signs

from keras_muon import minimax_schedule
from keras_muon.leading import BASIS_TRIPLES, held_by_bfloat16, mixing_signs

# How many sums every 16 rows give.
MIXTURES = {384: 3, 496: 3, 512: 2, 752: 2, 768: 1, 1024: 1}


def test_signs_are_the_same_everywhere():
    """Golden values, and the generator's closed form."""
    golden = (-1, -1, 1, 1, 1, 1, -1, 1, -1, -1, 1, 1, -1, -1, 1, 1)
    assert mixing_signs(384)[0][0] == golden
    for rows, count in MIXTURES.items():
        signs = random_signs(count * rows).reshape(-1, count, 16)
        np.testing.assert_array_equal(mixing_signs(rows), signs)


def test_signs_are_about_balanced():
    """Within three standard deviations of fair coins, each mixture and all together."""
    signs = np.array(mixing_signs(4096))
    assert abs(signs.sum()) < 3 * signs.size**0.5
    assert (abs(signs.sum((0, 2))) < 3 * signs.size**0.5).all()


def test_a_basis_is_orthonormal_where_it_matters():
    """Rounding b and c to bfloat16 keeps the steps converging: not those of (7e-3, 5).

    What is left of a value that is compressed is its distance from this 1, and leading
    values may be a thousand times as large as the others.
    """
    s = np.linspace(5e-3, 1.0, 100_000)
    # Largest difference seen 2.9e-5.
    assert np.abs(after_steps(s, BASIS_TRIPLES) - 1.0).max() < 1e-4
    diverging = held_by_bfloat16(minimax_schedule(7e-3, 5).take())
    assert np.abs(after_steps(s, diverging) - 1.0).max() > 1.0


def after_steps(s, triples):
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return s


def test_factors_are_numbers_of_bfloat16():
    """So that no backend rounds them, and a value of 1 stays where it is."""
    given = minimax_schedule(5e-3, 6).take()
    for (a, b, c), exact in zip(BASIS_TRIPLES, given, strict=True):
        for factor in (b, c):
            assert float(ml_dtypes.bfloat16(factor)) == factor
        assert a + b + c == pytest.approx(sum(exact), abs=1e-14)
        # Eight significant bits are half a unit of 2**-8 off at most.
        assert b == pytest.approx(exact[1], rel=2**-8)
        assert c == pytest.approx(exact[2], rel=2**-8)
