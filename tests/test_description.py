"""`describe()`: every variable with its reason, and totals that can be recounted."""

import math
import re

import keras
import numpy as np
import pytest
from described_models import dense, described, routes_in, rows, small_model

from keras_muon import SCHEDULES, Muon, Schedule


def test_one_row_per_variable():
    """Path, shape, in x out, batch, rule, reason and factor, written by hand."""
    text, _ = described(small_model())
    # Factors of moonlight: 0.2 * sqrt(9), 0.2 * sqrt(100).
    assert rows(routes_in(text)) == [
        [
            "mix/kernel",
            "3 x 3 x 8",
            "9 x 4",
            "2",
            "Muon",
            "convolution, 2 groups",
            "0.6",
        ],
        ["mix/bias", "8", "", "", "AdamW", "bias", ""],
        ["wide/kernel", "16 x 100", "16 x 100", "1", "Muon", "hidden matrix", "2"],
        ["wide/bias", "100", "", "", "AdamW", "bias", ""],
        ["thin/kernel", "100 x 3", "", "", "AdamW", "too thin: 100 x 3", ""],
        ["thin/bias", "3", "", "", "AdamW", "bias", ""],
        ["head/kernel", "3 x 4", "", "", "AdamW", "output head", ""],
        ["head/bias", "4", "", "", "AdamW", "bias", ""],
    ]


@pytest.mark.parametrize(
    ("scaling", "factors"),
    [
        ("naive", [1.0, 1.0]),
        ("original", [1.0, 2.5]),
        ("mup", [2 / 3, 2.5]),
        ("moonlight", [0.6, 2.0]),
    ],
)
def test_factors_follow_the_scaling(scaling, factors):
    """For 9 x 4 and 16 x 100, to three digits."""
    text, _ = described(small_model(), scaling=scaling)
    shown = [float(row[6]) for row in rows(routes_in(text)) if row[6]]
    assert shown == pytest.approx(factors, rel=5e-3)


def test_columns_are_named():
    """The header says what the columns are."""
    text, _ = described(small_model())
    (header,) = [line for line in routes_in(text).splitlines() if line[:1] == "┃"]
    names = [cell.strip() for cell in header.strip("┃").split("┃")]
    expected = ["variable", "shape", "in x out", "batch", "rule", "reason", "factor"]
    assert names == expected


def number(pattern, text):
    """The number that a pattern of the caption captures."""
    return int(re.search(pattern, text).group(1).replace(",", ""))


def size(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def test_totals_of_parameters():
    """They are the parameters of the model, counted from the model."""
    model = small_model()
    text, _ = described(model)
    hidden = [model.get_layer(name).kernel for name in ("mix", "wide")]
    assert number(r"Muon: ([\d,]+) of", text) == size(hidden) == 72 + 1600
    assert number(r"of ([\d,]+) parameters", text) == model.count_params() == 2099
    assert f"({(72 + 1600) / 2099:.1%})" in text


def kept_bytes(optimizer):
    """Bytes of what the optimizer keeps per variable, from the arrays themselves."""
    shared = [optimizer.iterations, optimizer.learning_rate]
    state = [v for v in optimizer.variables if all(v is not other for other in shared)]
    return sum(np.asarray(keras.ops.convert_to_numpy(v)).nbytes for v in state)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_totals_of_bytes(dtype):
    """State is what the optimizer's variables occupy; AdamW's is two per parameter."""
    inputs = keras.Input((6,))
    x = dense("hidden", dtype=dtype)(inputs)
    model = keras.Model(inputs, dense("head", 4, dtype=dtype)(x))
    text, optimizer = described(model)
    # Beside 2 bytes of bfloat16 variables the state has 4, and a master copy as well.
    copies = 4 * model.count_params() if dtype == "bfloat16" else 0
    adamw = 2 * 4 * model.count_params() + copies
    assert number(r"State: ([\d,]+) bytes", text) == kept_bytes(optimizer)
    assert number(r"AdamW would keep ([\d,]+)", text) == adamw
    assert kept_bytes(optimizer) == adamw - 4 * 6 * 8


def test_all_of_adamw_keeps_as_much_as_adamw():
    """With everything excluded nothing is saved, and the share is zero."""
    text, _ = described(small_model(), exclude=".*")
    kept = number(r"State: ([\d,]+) bytes", text)
    assert kept == number(r"AdamW would keep ([\d,]+)", text) > 0
    assert "(0.0%)" in text
    assert "Muon" not in [row[4] for row in rows(routes_in(text))]


class Custom(keras.layers.Layer):
    def build(self, input_shape):
        self.w = self.add_weight(shape=(8, 8), name="w", initializer="zeros")

    def call(self, x):
        return keras.ops.matmul(x, self.w)


@pytest.mark.filterwarnings("ignore:Muon leaves")
def test_what_is_not_proven_is_counted():
    """One line more if there is something open, none otherwise."""
    inputs = keras.Input((8,))
    open_model = keras.Model(inputs, dense("head", 4)(Custom(name="custom")(inputs)))
    assert "left to AdamW: 1 variables" in described(open_model)[0]
    assert "Not proven" not in described(small_model())[0]


TITLES = {
    "by default": ({}, "m: moonlight, schedule auto"),
    "other scaling": ({"ns_steps": 3, "scaling": "mup"}, "m: mup, schedule auto"),
    "other schedule": ({"schedule": "cubic"}, "m: moonlight, schedule cubic"),
    "name with brackets": (
        {"schedule": Schedule(SCHEDULES["you"].coefficients, name="mine [a]")},
        "m: moonlight, schedule mine [a]",
    ),
}


@pytest.mark.parametrize("name", TITLES)
def test_title_tells_the_settings(name):
    """Name, scaling and schedule stand above the table."""
    arguments, title = TITLES[name]
    text, _ = described(small_model(), name="m", **arguments)
    assert text.splitlines()[0].strip() == title


@pytest.mark.parametrize("pattern", ["[a-z]+/kernel", "head[/]kernel", ".*[/]bias"])
def test_patterns_are_shown_as_written(pattern):
    """Brackets of regular expressions are text, not markup."""
    text, optimizer = described(small_model(), routes={pattern: "adamw"})
    matched = [r for r in optimizer.routes if re.fullmatch(pattern, r.path)]
    assert text.count(f"by the user: {pattern}") == len(matched) > 0


def test_long_paths_are_complete():
    """Nothing is cut off; a long path goes on in the next line."""
    name = "_".join(f"block{i}" for i in range(20))
    inputs = keras.Input((8,))
    text, _ = described(keras.Model(inputs, dense("head", 4)(dense(name)(inputs))))
    assert rows(routes_in(text))[0][0] == f"{name}/kernel"


def test_without_print_fn_it_is_printed(capsys):
    """Standard output gets the same text."""
    text, optimizer = described(small_model())
    capsys.readouterr()
    assert optimizer.describe() is None
    printed = capsys.readouterr()
    assert printed.out == text
    assert printed.err == ""


def test_before_build_there_is_nothing_to_describe():
    """The error says how to come to a description."""
    with pytest.raises(ValueError, match=r"optimizer\.build\(model\.trainable_var"):
        Muon().describe()
    with pytest.raises(ValueError, match="call it after fit"):
        Muon.for_model(small_model()).describe()


def test_without_anything_to_train_describe_says_so():
    """It was called after fit, as the other message asks."""
    model = small_model()
    model.trainable = False
    optimizer = Muon()
    optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match="was built for no variables"):
        optimizer.describe()
