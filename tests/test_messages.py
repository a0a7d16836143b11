"""Errors name the argument, the value, what is allowed, and a way out."""

import math

import numpy as np
import pytest

from keras_muon.messages import (
    require_choice,
    require_count,
    require_flag,
    require_number,
    unknown_name,
)

KNOWN = ("jordan", "you", "polar_express")


def test_unknown_name_says_what_was_received_and_what_is_known():
    """All of it stands in one sentence, and nothing is guessed without a reason."""
    error = unknown_name("schedule", "zzz", KNOWN, "Or pass your own.")
    assert isinstance(error, ValueError)
    assert str(error) == (
        "Unknown `schedule`: 'zzz'. Known: 'jordan', 'you', 'polar_express'. "
        "Or pass your own."
    )


@pytest.mark.parametrize(
    ("received", "meant"),
    [
        ("yuo", "you"),
        ("Jordan", "jordan"),
        ("JORDAN", "jordan"),
        ("polar-express", "polar_express"),
    ],
)
def test_unknown_name_suggests_the_closest_name(received, meant):
    """A slip of the finger gets the name that was meant."""
    assert f"did you mean {meant!r}?" in str(unknown_name("name", received, KNOWN))


def test_a_description_that_marks_its_own_code_is_not_marked_again():
    """Marks inside of marks would be read the wrong way round."""
    message = str(unknown_name("axes of `routes['a']`", "in_axis", ["in_axes"]))
    assert message.startswith("Unknown axes of `routes['a']`: 'in_axis'; did you")


def test_nothing_is_suggested_that_is_less_alike_than_asked_for():
    """Half of the letters may be another word."""
    loose = unknown_name("argument", "caution", ["scaling"])
    strict = unknown_name("argument", "caution", ["scaling"], likeness=0.7)
    assert "did you mean 'scaling'?" in str(loose)
    assert "did you mean" not in str(strict)


@pytest.mark.parametrize("received", [np.ones(3), np.array(["you"]), None, 3], ids=repr)
def test_a_choice_is_a_name_of_those_that_are_known(received):
    """Anything else is refused by name, arrays without comparing their entries."""
    assert require_choice("schedule", "you", iter(KNOWN)) == "you"
    with pytest.raises(ValueError, match=r"Unknown `schedule`: .* Way out\."):
        require_choice("schedule", received, KNOWN, "Way out.")


@pytest.mark.parametrize("received", [None, 3, ("you", "jordan"), 2.5])
def test_unknown_name_takes_values_that_are_no_strings(received):
    """The message is made whatever the user passed, once, from any iterable."""
    message = str(unknown_name("schedule", received, iter(KNOWN)))
    assert f"`schedule`: {received!r}" in message
    assert message.endswith("'polar_express'.")


@pytest.mark.parametrize(
    "received", [0, 0.25, np.float32(0.5), np.int64(0), np.array(0.75)], ids=repr
)
def test_require_number_returns_a_python_float(received):
    """Numbers of NumPy are welcome and leave as plain floats."""
    number = require_number("momentum", received, below=1.0)
    assert type(number) is float
    assert number == received


@pytest.mark.parametrize(
    "received", ["0.5", True, None, [0.5], 1j, np.array([0.5])], ids=repr
)
def test_require_number_refuses_other_types_by_name(received):
    """Strings and flags are no numbers, even where Python could convert them."""
    with pytest.raises(
        TypeError, match=r"`momentum` must be a number; received .* Way out"
    ):
        require_number("momentum", received, way_out="Way out.")


@pytest.mark.parametrize("received", [-1e-9, 1.0, 7, math.nan, math.inf, -math.inf])
def test_require_number_refuses_what_lies_outside(received):
    """The upper end is outside, and so is everything that is not finite."""
    with pytest.raises(ValueError, match=r"`momentum` must lie in \[0, 1\); received"):
        require_number("momentum", received, below=1.0)


def test_require_number_without_upper_end_still_refuses_infinity():
    """An open range ends before infinity."""
    assert require_number("rate", 1e300) == 1e300
    with pytest.raises(ValueError, match=r"\[0, inf\)"):
        require_number("rate", math.inf)


def test_require_number_with_open_minimum_refuses_the_minimum():
    """A zero is refused exactly where the range is open."""
    assert require_number("rms", 0.0) == 0.0
    assert require_number("rms", 1e-300, open_minimum=True) == 1e-300
    with pytest.raises(ValueError, match=r"`rms` must lie in \(0, inf\)"):
        require_number("rms", 0.0, open_minimum=True)


@pytest.mark.parametrize("received", [1, 5, np.int64(7), np.uint8(3)], ids=repr)
def test_require_count_returns_a_python_int(received):
    """Whole numbers of NumPy are welcome and leave as plain ints."""
    count = require_count("steps", received)
    assert type(count) is int
    assert count == received


@pytest.mark.parametrize("received", [1.0, "1", None, True, [1]], ids=repr)
def test_require_count_refuses_other_types_by_name(received):
    """A float is no count, not even a whole one."""
    with pytest.raises(TypeError, match=r"`steps` must be a whole number of at least"):
        require_count("steps", received)


@pytest.mark.parametrize("received", [0, -3])
def test_require_count_refuses_less_than_one(received):
    """The message holds the number and the way out."""
    with pytest.raises(ValueError, match=rf"received {received}\. Way out\.$"):
        require_count("steps", received, way_out="Way out.")


@pytest.mark.parametrize("flag", [True, False])
def test_require_flag_returns_flags(flag):
    """True and False pass."""
    assert require_flag("nesterov", flag) is flag


@pytest.mark.parametrize("received", [1, 0, None, "true", np.True_], ids=repr)
def test_require_flag_refuses_what_is_only_truthy(received):
    """Nothing else passes, so that a shifted argument cannot go unnoticed."""
    with pytest.raises(TypeError, match=r"`nesterov` must be True or False; received"):
        require_flag("nesterov", received)
