"""The second table of `describe()`: the plan of Newton-Schulz for each shape."""

import keras
import pytest
from described_models import dense, described, rows, small_model

from keras_muon import SCHEDULES, Muon
from keras_muon.description import print_description
from keras_muon.plan_choice import plan_for


def test_plans_are_shown_and_recounted():
    """Per shape how many matrices, which steps share what, the cost, and why."""
    inputs = keras.Input((256,))
    x = dense("wide", 1024)(inputs)
    x = dense("also", 1024)(dense("narrow", 256)(x))
    model = keras.Model(inputs, dense("head", 4)(dense("thin", 8)(x)))
    text, optimizer = described(model)
    plans = rows(text.partition("\nNewton-Schulz")[2])
    # Units of 2 * 256**3: 30 for each of five steps in two segments (see test_plan).
    unit = 2 * 256**3 / 1e9
    saves = "sharing Gram matrices saves 33%"
    # A step on 1024 x 8: two products of 8 x 8 x 1024 and one of 8 x 8 x 8.
    few = "fewer than 128 rows"
    thin = 5 * 2 * (2 * 8 * 8 * 1024 + 8**3) / 1e9
    # Entries moved, in squares of 256, where X has four. Each segment: X and R; X, R
    # and the next X. Of three steps, that is R and R R thrice, two factors and a
    # product twice, three factors and a product twice; of two steps the like.
    moved = 2 * (4 + 1 + 4 + 1 + 4) + (3 * 2 + 4 * 3 + 2 * 4) + (2 * 2 + 2 * 3 + 4)
    wide, tall = (f"{4 * n * moved * 256**2 / 1e6:.3g}" for n in (2, 1))
    # X and R; R and R R; R, X and the next X.
    narrow = f"{4 * 5 * (3 * 8 * 1024 + 4 * 8 * 8) / 1e6:.3g}"
    two, one = (f"{matrices * 30 * unit:.3g}" for matrices in (2, 1))
    share, alone = (["2 for 5 steps", "float32"], ["5 for 5 steps", "float32"])
    together = "none" if keras.backend.backend() == "torch" else "1, in turn"
    assert plans == [
        ["256 x 1024", "2", together, *share, two, wide, saves],
        ["1024 x 256", "1", "none", *share, one, tall, saves],
        ["1024 x 8", "1", "none", *alone, f"{thin:.3g}", narrow, few],
    ]
    assert sum(count for count, _ in optimizer.plans) == 4


def test_a_plan_tells_what_is_compressed():
    """From 384 rows on: how many directions, beside the steps that follow."""
    inputs = keras.Input((400,))
    model = keras.Model(inputs, dense("head", 4)(dense("large", 1600)(inputs)))
    text, _ = described(model)
    ((fans, _, _, steps, _, _, _, reason),) = rows(text.partition("\nNewton-Schulz")[2])
    assert (fans, steps) == ("400 x 1600", "1 for 3 steps")
    assert reason.startswith("75 leading values compressed; sharing Gram matrices")


@pytest.mark.parametrize(
    ("batched", "stacks"), [("auto", "1"), (True, "1"), (False, "none")]
)
def test_small_matrices_share_a_row_with_transposed_ones(batched, stacks):
    """However many of them share an iteration."""
    inputs = keras.Input((64,))
    x = dense("b", 16)(dense("a", 64)(dense("first", 16)(inputs)))
    model = keras.Model(inputs, dense("head", 4)(x))
    text, _ = described(model, batched=batched)
    found = [row[:3] for row in rows(text.partition("\nNewton-Schulz")[2])]
    assert found == [["64 x 16", "3", stacks]]


@pytest.mark.parametrize(
    ("loop", "stacks"), [("none", "2"), ("in_stack", "2, in turn")]
)
def test_stacks_are_counted_and_loops_are_told(loop, stacks):
    """Two stacks and a matrix of its own; a loop takes one matrix at a time."""
    plan = plan_for(512, 512, SCHEDULES["you"], "float32", loop=loop)
    texts = []
    print_description(
        "title", [], None, 0, 0, [(3, plan), (1, plan), (2, plan)], "", texts.append
    )
    ((_, matrices, found, *_),) = rows(texts[0].partition("\nNewton-Schulz")[2])
    assert (matrices, found) == ("6", stacks)


def test_the_reason_of_the_dtype_is_told():
    """Below the table, for `"auto"` as for what was asked for."""
    text, _ = described(small_model())
    told = text.rstrip().splitlines()[-1]
    assert told.startswith("dtype: not bfloat16, since ") or told.startswith(
        "dtype: bfloat16 from 256 rows on, 64 in a stack, since "
    )
    text, _ = described(small_model(), compute_dtype="float32")
    assert "dtype: compute_dtype='float32' was asked for." in text


def test_before_building_there_are_no_plans():
    """Nor routes: an optimizer sees its variables when it is built."""
    optimizer = Muon()
    assert optimizer.plans == optimizer.routes == ()


def test_without_hidden_matrices_there_are_no_plans():
    """A model of AdamW's variables alone has one table."""
    text, optimizer = described(small_model(), exclude=".*")
    assert "Newton-Schulz" not in text
    assert optimizer.plans == ()
