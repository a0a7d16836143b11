"""Schedules as arguments: what is refused, JSON, and lookup by name."""

import dataclasses
import json

import numpy as np
import pytest

from keras_muon import SCHEDULES, Schedule
from keras_muon.schedules import get_schedule

CUBIC = (1.5, -0.5, 0.0)
OWN = Schedule(
    ((2.0, -1.5, 0.5), CUBIC),
    5,
    "repeat",
    safety=1.02,
    name="own",
    source="a paper",
    compressed=(CUBIC, (2.0, -1.5, 0.5)),
)


@pytest.mark.parametrize(
    "coefficients",
    [(), 5, None, "abc", CUBIC, ((1.5, -0.5),), ((1.5, "x", 0.0),), ((*CUBIC, 1.0),)],
    ids=str,
)
def test_coefficients_must_be_triples(coefficients):
    """What is not a sequence of three numbers each is refused with the way out."""
    with pytest.raises(ValueError, match="non-empty sequence of triples") as error:
        Schedule(coefficients)
    assert "For a cubic step pass c=0." in str(error.value)


@pytest.mark.parametrize("position", [0, 1, 2], ids="abc")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_coefficients_must_be_finite(position, value):
    """A single number that is not finite is found wherever it stands."""
    last = [*CUBIC]
    last[position] = value
    with pytest.raises(ValueError, match="`coefficients` must be finite"):
        Schedule((CUBIC, last))


@pytest.mark.parametrize(
    ("compressed", "message"),
    [
        (5, "`compressed` must be a non-empty sequence of triples"),
        (((1.5, -0.5),), "`compressed` must be a non-empty sequence of triples"),
        (((np.nan, -0.5, 0.0),), "`compressed` must be finite"),
        (((-1.5, 0.5, 0.0),), "changes sign: step 1"),
        ((CUBIC, (3.5, -0.5, 0.0)), "blows up: step 2"),
    ],
    ids=str,
)
def test_compressed_triples_are_checked_like_the_others(compressed, message):
    """They meet singular values in (0, 1.005] too; `coefficients` are good here."""
    with pytest.raises(ValueError, match=message):
        Schedule((CUBIC,), compressed=compressed)


@pytest.mark.parametrize("empty", [(), []], ids=str)
def test_no_compressed_triples_are_an_empty_tuple(empty):
    """In whatever sequence nothing was passed: the schedule is the same value."""
    schedule = Schedule((CUBIC,), compressed=empty)
    assert schedule == Schedule((CUBIC,))
    assert hash(schedule) == hash(Schedule((CUBIC,)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tail": "hold"}, ValueError, "Unknown `tail`: 'hold'"),
        ({"tail": "repeated"}, ValueError, "did you mean 'repeat'?"),
        ({"steps": -1}, ValueError, "`steps` must be at least 1"),
        ({"steps": 2.0}, TypeError, "`steps` must be a whole number"),
        ({"safety": 0.99}, ValueError, r"`safety` must lie in \[1, 2\)"),
        ({"safety": 2.0}, ValueError, r"`safety` must lie in \[1, 2\)"),
        ({"safety": None}, TypeError, "`safety` must be a number"),
    ],
    ids=str,
)
def test_other_arguments_are_checked_when_a_schedule_is_made(arguments, error, message):
    """A schedule that exists can be used: nothing is left to the first step."""
    with pytest.raises(error, match=message):
        Schedule((CUBIC,), **arguments)


def test_a_schedule_is_a_value():
    """Equal arguments make equal schedules, which cannot be changed or mixed up."""
    rows = np.array([[2.0, -1.5, 0.5], CUBIC], np.float32)
    same = dataclasses.replace(OWN, coefficients=rows, compressed=rows[::-1])
    assert same == OWN
    assert hash(same) == hash(OWN)
    triples = same.coefficients + same.compressed
    assert all(type(x) is float for row in triples for x in row)
    assert dataclasses.replace(OWN, safety=1.03) != OWN
    with pytest.raises(dataclasses.FrozenInstanceError):
        OWN.safety = 1.5


@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), OWN], ids=lambda s: s.name)
def test_json_keeps_everything(schedule):
    """A schedule survives the way through text, source and name included."""
    text = json.dumps(schedule.to_json())
    assert Schedule.from_json(json.loads(text)) == schedule
    assert get_schedule(json.loads(text)) == schedule


@pytest.mark.parametrize(
    "arguments", [{"steps": np.int64(1)}, {"safety": np.float32(1.25)}], ids=str
)
def test_json_is_plain_even_where_the_arguments_were_numpy_scalars(arguments):
    """What `to_json` returns is JSON, whatever kind of number was passed."""
    schedule = Schedule((CUBIC,), **arguments)
    assert Schedule.from_json(json.loads(json.dumps(schedule.to_json()))) == schedule


def test_json_is_checked_like_every_other_schedule():
    """A file cannot bring in what the constructor refuses."""
    values = OWN.to_json() | {"coefficients": [[-1.5, 0.5, 0.0]]}
    with pytest.raises(ValueError, match="changes sign"):
        Schedule.from_json(values)


@pytest.mark.parametrize("name", SCHEDULES)
def test_get_schedule_by_name(name):
    """A name gives the schedule of the table, a schedule gives itself."""
    assert get_schedule(name) is SCHEDULES[name]
    assert get_schedule(SCHEDULES[name]) is SCHEDULES[name]
    assert get_schedule(OWN) is OWN


@pytest.mark.parametrize(
    ("received", "meant"),
    [("yuo", "you"), ("polarexpress", "polar_express"), ("quintik", "quintic")],
)
def test_get_schedule_suggests_the_closest_name(received, meant):
    """A slip of the finger gets the name that was meant, and the way out."""
    with pytest.raises(ValueError, match=f"did you mean '{meant}'") as error:
        get_schedule(received)
    assert "pass Schedule(coefficients=((a, b, c), ...))" in str(error.value)


@pytest.mark.parametrize("received", ["aol", None, 5, ((1.5, -0.5, 0.0),)], ids=str)
def test_get_schedule_refuses_what_it_does_not_know(received):
    """Bare triples and other objects are refused with the list of names."""
    with pytest.raises(ValueError, match="Known: 'auto', 'jordan', 'you'"):
        get_schedule(received)
