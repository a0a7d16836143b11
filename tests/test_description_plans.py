"""The second table of `describe()`: the plan of Newton-Schulz for each shape."""

import re
import sys

import keras
import numpy as np
import pytest
from described_models import dense, described, rows, small_model
from rich.console import Console

from keras_muon import SCHEDULES, Muon, description, devices, planning
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
    two_wide = "2" if keras.backend.backend() == "torch" else "2 in 1, in turn"
    assert plans == [
        ["256 x 1024", two_wide, *share, two, wide, saves],
        ["1024 x 256", "1", *share, one, tall, saves],
        ["1024 x 8", "1", *alone, f"{thin:.3g}", narrow, few],
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


@pytest.mark.parametrize(
    ("batched", "matrices"), [("auto", "3 in 1"), (True, "3 in 1"), (False, "3")]
)
def test_small_matrices_share_a_row_with_transposed_ones(batched, matrices):
    """However many of them share an iteration."""
    inputs = keras.Input((64,))
    x = dense("b", 16)(dense("a", 64)(dense("first", 16)(inputs)))
    model = keras.Model(inputs, dense("head", 4)(x))
    text, _ = described(model, batched=batched)
    found = [row[:2] for row in rows(text.partition("\nNewton-Schulz")[2])]
    assert found == [["64 x 16", matrices]]


@pytest.mark.parametrize(
    ("loop", "counts", "matrices"),
    [
        ("none", (3, 2), "5 in 2"),
        ("none", (1, 1), "2"),
        ("in_stack", (3, 2), "5 in 2, in turn"),
        ("apart", (3, 2), "5, in turn"),
    ],
)
def test_stacks_are_counted_and_loops_are_told(loop, counts, matrices):
    """A loop takes one matrix at a time, out of a stack or without one."""
    plan = plan_for(512, 512, SCHEDULES["you"], "float32", loop=loop)
    texts = []
    plans = [(count, plan) for count in counts]
    print_description("title", [], None, 0, 0, plans, "", texts.append)
    ((_, found, *_),) = rows(texts[0].partition("\nNewton-Schulz")[2])
    assert found == matrices


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_still_shows_all_numbers(monkeypatch, capsys, width):
    """Folded, never cut."""
    monkeypatch.setattr(
        description, "_console", lambda: Console(file=sys.stdout, width=width)
    )
    plan = plan_for(768, 768, SCHEDULES["auto"], "float32", loop="in_stack")
    print_description("title", [], None, 0, 0, [(6, plan)] * 8, "dtype: reason.")
    text = capsys.readouterr().out.partition("Newton-Schulz")[2]
    joined = "".join(text.split())
    assert "…" not in text
    for number in ("768x768", "float32"):
        assert number in joined
    cells = [line.split("│")[2].strip() for line in text.splitlines() if "│" in line]
    assert " ".join(filter(None, cells)) == "48 in 8, in turn"


FAST, SLOW = (True, "it is fast"), (False, "it is slow")


@pytest.mark.parametrize(
    ("compute_dtype", "planned", "products", "told"),
    [
        ("float32", ["float32"], FAST, "float32, as compute_dtype asks"),
        ("auto", ["float32"], SLOW, "not bfloat16, since it is slow"),
        ("auto", ["float32"], FAST, "not bfloat16, since no matrix is large enough"),
        ("auto", ["float32", "bfloat16"], FAST, "bfloat16 on large .* it is fast"),
        ("auto", ["float64"], FAST, "as wide as the variables"),
        ("auto", ["float64"], SLOW, "as wide as the variables"),
    ],
    ids=str,
)
def test_the_reason_of_the_dtype_is_that_of_the_plans(
    monkeypatch, compute_dtype, planned, products, told
):
    """What was asked for, what the variables are, or what the device can."""
    asked = []

    def products_of_bfloat16(xla):
        asked.append(xla)
        return devices.BfloatProducts(*products)

    monkeypatch.setattr(planning, "products_of_bfloat16", products_of_bfloat16)
    text = planning.dtype_reason(compute_dtype, planned, xla="perhaps")
    assert re.fullmatch(rf"dtype: {told}.*\.", text)
    assert set(asked) <= {"perhaps"}


def test_the_reason_of_the_dtype_stands_below_the_table():
    """In float64, which JAX has on request alone, it is no matter of the device."""
    text, _ = described(small_model(), compute_dtype="float32")
    assert text.rstrip().endswith("dtype: float32, as compute_dtype asks.")
    if keras.backend.backend() == "jax":
        return
    variable = keras.Variable(np.ones((8, 8)), dtype="float64", name="wide")
    optimizer = Muon(routes={"wide": "muon"})
    optimizer.build([variable])
    texts = []
    optimizer.describe(texts.append)
    assert texts[0].rstrip().endswith("dtype: as wide as the variables.")


def test_before_building_there_are_no_plans():
    """Nor routes: an optimizer sees its variables when it is built."""
    optimizer = Muon()
    assert optimizer.plans == optimizer.routes == ()


def test_without_hidden_matrices_there_are_no_plans():
    """A model of AdamW's variables alone has one table."""
    text, optimizer = described(small_model(), exclude=".*")
    assert "Newton-Schulz" not in text
    assert optimizer.plans == ()
