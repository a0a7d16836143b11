"""The four factors, their published values, and what they are worth in steps."""

import math

import numpy as np
import pytest

from keras_muon.scaling import (
    SCALINGS,
    get_scaling,
    moonlight_scale,
    mup_scale,
    naive_scale,
    original_scale,
)

# (fan_in, fan_out) -> naive, original, mup, moonlight; worked out by hand from the
# formulas of Jordan et al. 2024, Yang et al. 2023 (condition 1) and Liu et al. 2025
# (equation 4, rms 0.2).
BY_HAND = {
    (256, 1024): (1.0, 2.0, 2.0, 6.4),
    (1024, 256): (1.0, 1.0, 0.5, 6.4),
    (100, 100): (1.0, 1.0, 1.0, 2.0),
    (4, 2500): (1.0, 25.0, 25.0, 10.0),
    (1, 1): (1.0, 1.0, 1.0, 0.2),
}


@pytest.mark.parametrize(("fans", "factors"), BY_HAND.items(), ids=map(str, BY_HAND))
def test_factors_are_those_worked_out_by_hand(fans, factors):
    """Each scaling has its published value, by function and by name."""
    names = ("naive", "original", "mup", "moonlight")
    functions = (naive_scale, original_scale, mup_scale, moonlight_scale)
    for name, function, factor in zip(names, functions, factors, strict=True):
        # Rounding of one root is below 1e-15; in and out exchanged is off by 0.5.
        assert function(*fans) == pytest.approx(factor, rel=1e-15)
        assert get_scaling(name)(*fans) == function(*fans)


def test_there_are_four_scalings():
    """The table holds the four names of the contract and no "spectral"."""
    assert list(SCALINGS) == ["naive", "original", "mup", "moonlight"]


def test_in_and_out_are_not_interchangeable():
    """Two scalings depend on the direction, two do not."""
    directed = {n for n, scale in SCALINGS.items() if scale(8, 32) != scale(32, 8)}
    assert directed == {"original", "mup"}


def polar_factor_by_qr(rng, fan_in, fan_out):
    """A matrix whose singular values are all 1."""
    tall = rng.standard_normal((max(fan_in, fan_out), min(fan_in, fan_out)))
    q, _ = np.linalg.qr(tall)
    return q if fan_in >= fan_out else q.T


@pytest.mark.parametrize("fans", [(24, 6), (6, 24), (9, 9)], ids=str)
def test_moonlight_moves_every_entry_by_the_wanted_rms(rng, fans):
    """The scaled polar factor has a root mean square of `rms` in any shape."""
    step = get_scaling("moonlight", rms=0.3)(*fans) * polar_factor_by_qr(rng, *fans)
    # Largest error seen 1e-16; the smaller side instead of the larger is off by 0.15.
    assert math.sqrt((step**2).mean()) == pytest.approx(0.3, abs=1e-12)


@pytest.mark.parametrize("fans", [(24, 6), (6, 24), (9, 9)], ids=str)
def test_mup_step_has_unit_norm_between_root_mean_squares(rng, fans):
    """The largest gain from input rms to output rms is exactly 1."""
    fan_in, fan_out = fans
    step = mup_scale(*fans) * polar_factor_by_qr(rng, *fans)
    gain = np.linalg.norm(step, 2) * math.sqrt(fan_in / fan_out)
    # Largest error seen 1e-15; the inverse factor is off by a factor of 4.
    assert gain == pytest.approx(1.0, abs=1e-12)


def test_rms_belongs_to_moonlight_alone():
    """Another `rms` changes one scaling, in proportion."""
    for name in SCALINGS:
        ratio = get_scaling(name, rms=0.4)(8, 32) / get_scaling(name, rms=0.2)(8, 32)
        assert ratio == (2.0 if name == "moonlight" else 1.0)


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("rms", [0.0, -0.2, math.nan], ids=str)
def test_rms_must_be_positive_whatever_the_scaling(name, rms):
    """A bad `rms` is refused even by scalings that ignore it."""
    with pytest.raises(ValueError, match=r"`rms` must lie in \(0, inf\)"):
        get_scaling(name, rms=rms)


@pytest.mark.parametrize("scaling", ["moonlite", "spectral", None, 1], ids=str)
def test_unknown_scalings_are_refused_by_name(scaling):
    """The message lists what is known, and guesses where it can."""
    with pytest.raises(ValueError, match="Unknown `scaling`") as error:
        get_scaling(scaling)
    assert "'naive', 'original', 'mup', 'moonlight'" in str(error.value)
    assert ("did you mean 'moonlight'?" in str(error.value)) == (scaling == "moonlite")


@pytest.mark.parametrize("name", SCALINGS)
def test_extents_must_be_counts(name):
    """No scaling answers for an empty matrix or a fractional one."""
    with pytest.raises(ValueError, match="`fan_in` must be at least 1"):
        SCALINGS[name](0, 8)
    with pytest.raises(TypeError, match="`fan_out` must be a whole number"):
        SCALINGS[name](8, 8.0)
