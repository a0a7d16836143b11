"""Which buckets of a compiled step wait for which."""

import types

import keras
import pytest

from keras_muon.plan_choice import LARGEST_STACKED_ON_CPU
from keras_muon.waiting import MOST_SIDE_BY_SIDE, Waiting

COMPILES = keras.backend.backend() != "torch"
compiled_only = pytest.mark.skipif(not COMPILES, reason="torch compiles nothing")

MOST = MOST_SIDE_BY_SIDE.get(keras.backend.backend(), 2**20)
LARGE = [(512, 256)]
STACK = [(64, 64)] * (MOST // 2 // 4096)
SMALL = [(64, 64)] * (LARGEST_STACKED_ON_CPU // 4096)


def awaited(*buckets):
    """Return for each bucket the number of the one that it waits for."""
    found = [[types.SimpleNamespace(shape=s) for s in shapes] for shapes in buckets]
    waiting = Waiting([variable for variables in found for variable in variables])
    before = [waiting.awaited_by(variables) for variables in found]
    numbers = {id(variables): number for number, variables in enumerate(found)}
    return [None if b is None else numbers[id(b)] for b in before]


@compiled_only
@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ([LARGE] * 3, [None, 0, 1]),
        ([STACK] * 4, [None, None, 0, 1]),
        ([STACK * 2] * 3, [None, 0, 1]),
        ([STACK[1:]] * 2 + [SMALL[1:]] * 2, [None] * 4),
        ([STACK, STACK, [(64, 64)] * 17], [None, None, 0]),
        ([LARGE, SMALL, LARGE, SMALL], [None, None, 0, None]),
        ([LARGE, STACK, STACK, LARGE], [None, None, 0, 2]),
    ],
    ids=["large", "stacks", "full", "small", "one-more", "small-between", "mixed"],
)
def test_one_large_matrix_or_so_many_small_ones_at_a_time(buckets, expected):
    """Those of a few entries neither wait nor are waited for."""
    assert awaited(*buckets) == expected


@compiled_only
def test_in_deep_models_more_are_side_by_side():
    """A tenth of all entries, whose number makes no more of them wait."""
    double = STACK * 4
    assert awaited(*[double] * 3) == [None, 0, 1]
    assert awaited(*[double] * 20)[:4] == [None, None, 0, 1]


@compiled_only
def test_a_matrix_at_the_limit_is_small():
    """One more column has the threads to itself."""
    assert awaited([(512, 128)], [(512, 128)]) == [None, None]
    assert awaited([(512, 129)], [(512, 129)]) == [None, 0]


@pytest.mark.skipif(COMPILES, reason="a compiled step has an order of its own")
def test_eager_torch_waits_for_nothing():
    """It updates one bucket after the other, or chooses itself which go together."""
    assert awaited(LARGE, LARGE, STACK, STACK, STACK) == [None] * 5
