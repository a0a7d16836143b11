"""The second table of `describe()`: the plan of Newton-Schulz for each shape."""

import keras
import pytest
from described_models import dense, described, rows, small_model

from keras_muon import Muon


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
    share = ["2 for 5 steps", "float32"]
    assert plans == [
        ["256 x 1024", "2", *share, two, wide, saves],
        ["1024 x 256", "1", *share, one, tall, saves],
        ["1024 x 8", "1", "5 for 5 steps", "float32", f"{thin:.3g}", narrow, few],
    ]
    assert sum(count for count, _ in optimizer.plans) == 4


def test_a_plan_tells_what_is_compressed():
    """From 384 rows on: how many directions, beside the steps that follow."""
    inputs = keras.Input((400,))
    model = keras.Model(inputs, dense("head", 4)(dense("large", 1600)(inputs)))
    text, _ = described(model)
    ((fans, _, steps, _, _, _, reason),) = rows(text.partition("\nNewton-Schulz")[2])
    assert (fans, steps) == ("400 x 1600", "1 for 3 steps")
    assert reason.startswith("75 leading values compressed; sharing Gram matrices")


@pytest.mark.parametrize("batched", ["auto", False])
def test_small_matrices_share_a_row_with_transposed_ones(batched):
    """Whatever goes through one iteration, which is none of a reader's business."""
    inputs = keras.Input((64,))
    x = dense("b", 16)(dense("a", 64)(dense("first", 16)(inputs)))
    model = keras.Model(inputs, dense("head", 4)(x))
    text, _ = described(model, batched=batched)
    found = [row[:2] for row in rows(text.partition("\nNewton-Schulz")[2])]
    assert found == [["64 x 16", "3"]]


def test_before_building_there_are_no_plans():
    """Nor routes: an optimizer sees its variables when it is built."""
    optimizer = Muon()
    assert optimizer.plans == optimizer.routes == ()


def test_without_hidden_matrices_there_are_no_plans():
    """A model of AdamW's variables alone has one table."""
    text, optimizer = described(small_model(), exclude=".*")
    assert "Newton-Schulz" not in text
    assert optimizer.plans == ()
