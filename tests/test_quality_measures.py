"""What the contract of quality rests on: the captures, the measure, the verdict."""

import json

import captures
import captures_models
import keras
import numpy as np
import pytest
import quality
import quality_report
from captures import Recipe, captured
from captures_synthetic import KINDS, SHAPES, synthetic
from quality_measures import (
    BASELINE,
    SYNTHETIC,
    PolarFactor,
    Row,
    allowed,
    breaches,
    jordan_band,
)

from keras_muon import SCHEDULES, orthogonalize

BAND = jordan_band(SCHEDULES["jordan"].take())


class Linear:
    """Softmax of a product of two matrices, whose gradient fits in a line."""

    def __init__(self, rng):
        self.x = rng.standard_normal((20, 12)).astype("float32")
        self.labels = rng.integers(0, 4, 20).astype("int32")

    def build(self):
        inputs = keras.Input((12,))
        x = keras.layers.Dense(10, use_bias=False, name="hidden")(inputs)
        x = keras.layers.Dense(4, use_bias=False, name="head")(x)
        model = keras.Model(inputs, x)
        self.weights = [w.astype("float64") for w in model.get_weights()]
        return model

    def batches(self):
        while True:
            yield self.x, self.labels

    def gradient(self):
        hidden, head = self.weights
        logits = self.x @ hidden @ head
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        p[np.arange(len(p)), self.labels] -= 1.0
        return self.x.T @ p @ head.T / len(p)


def test_a_capture_is_the_nesterov_update(rng):
    """At a rate that moves nothing: M = 1, 1.9, 2.71 G, so U = G + 0.9 M."""
    linear = Linear(rng)
    recipe = Recipe("linear", linear.build, linear.batches, (1, 3), rate=1e-12)
    found = captured(recipe)
    expected = {1: 1 + 0.9, 3: 1 + 0.9 * 2.71}
    assert found.keys() == {f"linear/step{step}/hidden" for step in expected}
    for step, factor in expected.items():
        update = found[f"linear/step{step}/hidden"]
        gradient = linear.gradient()
        assert np.abs(gradient).max() > 1e-2
        # Seen 1e-7; a missing look ahead would be 26 % off.
        np.testing.assert_allclose(update, factor * gradient, rtol=0, atol=1e-6)


def test_captures_are_kept_and_cannot_be_changed(rng):
    linear = Linear(rng)
    recipe = Recipe("linear", linear.build, linear.batches, (1,), rate=1e-3)
    assert captured(recipe) is captured(recipe)
    (update,) = captured(recipe).values()
    with pytest.raises(ValueError, match="read-only"):
        update[0, 0] = 1.0


def test_batches_are_the_same_for_a_seed():
    first, again, other = (
        next(captures_models.digits_batches(seed))[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.5


def test_training_never_sees_the_images_of_validation():
    seen = {image.tobytes() for image in captures_models._digits()[0][:1400]}
    images, _ = captures_models.digits_validation()
    assert len(images) == 397
    assert not seen & {image.tobytes() for image in images}


def polar_by_newton(x):
    """Newton's iteration for the polar factor of a square matrix: no SVD, no Gram."""
    for _ in range(60):
        x = (x + np.linalg.inv(x).T) / 2
    return x


def test_the_factor_of_a_full_matrix_is_newtons(rng):
    x = rng.standard_normal((24, 24))
    factor = polar_by_newton(x)
    exact = PolarFactor(x)
    assert exact.rank == 24
    assert exact.error(factor) < 1e-9
    # A change of 1 % of the norm is an error of 1 %, whatever its direction.
    change = rng.standard_normal((24, 24))
    change *= 0.01 * np.linalg.norm(factor) / np.linalg.norm(change)
    assert exact.error(factor + change) == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize(
    ("place", "counts"), [((0, 0), True), ((0, 3), True), ((3, 0), True), ((3, 4), 0)]
)
def test_only_the_null_space_is_not_counted(place, counts):
    """Range is the first two directions of five and six; one entry is 0.3 off."""
    x = np.zeros((5, 6))
    x[0, 0], x[1, 1], x[2, 2] = 5.0, 1e-3, 4e-6  # the last is below 1e-6 of the first
    result = np.zeros((5, 6))
    result[0, 0] = result[1, 1] = 1.0
    exact = PolarFactor(x)
    assert exact.rank == 2
    assert exact.error(result) == 0.0
    result[place] += 0.3
    assert exact.error(result) == pytest.approx(0.3 / 2**0.5 if counts else 0.0)


def test_zero_has_no_factor_but_zero():
    exact = PolarFactor(np.zeros((3, 4)))
    assert exact.rank == 0
    assert exact.error(np.zeros((3, 4))) == 0.0
    assert exact.error(np.full((3, 4), 0.5)) == pytest.approx(3**0.5)


def test_synthetic_matrices_are_what_their_names_say():
    """Ranks and conditions by NumPy; the same on every call."""
    found, again = synthetic(), synthetic()
    assert len(found) == len(KINDS) * len(SHAPES)
    for name, x in found.items():
        np.testing.assert_array_equal(x, again[name])
        assert x.dtype == "float32"
    ranks = {"rank m/16, square": 8, "rank 1, 4:1": 1, "zero, 8x8": 0}
    assert {name: np.linalg.matrix_rank(found[name]) for name in ranks} == ranks
    conditions = {"orthogonal, 1:4": 1, "condition 1e6, 8x8": 1e6, "power law, 8x8": 22}
    for name, condition in conditions.items():
        # Float32 holds the smallest of 1e-6 to a few per cent.
        assert np.linalg.cond(found[name]) == pytest.approx(condition, rel=0.1)
    assert 500 < np.linalg.norm(found["huge direction, square"], 2) < 1500


def row(error, base=0.2, source="gpt", condition=10.0):
    errors = {"default": error, BASELINE: base}
    return Row(source, "matrix", (4, 4), 4, condition, errors)


@pytest.mark.parametrize("error", [0.2101, float("nan"), float("inf")])
def test_one_matrix_above_five_per_cent_is_a_breach(error):
    """Also beside one that is far better, as the mean is."""
    found = breaches([row(error), row(0.0)], "default", BAND)
    assert "matrix" in found[-1]
    assert breaches([row(0.2099), row(0.0)], "default", BAND) == []


def test_a_mean_above_jordans_is_a_breach():
    found = breaches([row(0.201), row(0.2)], "default", BAND)
    assert len(found) == 1
    assert "mean over captures" in found[0]
    # Synthetic matrices cannot make up for captures.
    better = [row(0.0, source=SYNTHETIC)] * 5
    assert len(breaches([row(0.201), *better], "default", BAND)) == 1


def test_only_matrices_of_one_singular_value_get_the_band():
    """Jordan's five steps leave a value anywhere between 0.68 and 1.21."""
    assert 0.3 < BAND < 0.33
    assert allowed(row(0.0, 0.07, condition=1.0), BAND) == BAND
    assert allowed(row(0.0, 0.07, condition=1.1), BAND) == pytest.approx(0.0735)


def updates():
    """One update of each source of the contract that is quick to have."""
    kinds = ("gaussian", "power law", "row scales")
    return {name: x for name, x in synthetic().items() if name.startswith(kinds)}


MISTAKES = {
    "two_steps": {"schedule": "you", "steps": 2},
    "three_steps": {"schedule": "you", "steps": 3},
    "four_steps_of_jordan": {"schedule": "jordan", "steps": 4},
    "steps_in_the_wrong_order": {
        "schedule": {
            **SCHEDULES["you"].to_json(),
            "coefficients": [*SCHEDULES["you"].coefficients[::-1]],
        }
    },
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_break_the_contract(monkeypatch, mistake):
    real = quality.orthogonalized

    def wrong(update, method):
        if method == BASELINE:
            return real(update, method)
        result = orthogonalize(update, **MISTAKES[mistake])
        return keras.ops.convert_to_numpy(result)

    monkeypatch.setattr(quality, "orthogonalized", wrong)
    rows = quality.measured_rows("gpt", updates(), ("default", BASELINE))
    assert len(breaches(rows, "default", BAND)) > 1


@pytest.mark.parametrize(("method", "code"), [("you", 0), ("cubic", 1)])
def test_the_command_answers_by_its_exit_code(
    rng, monkeypatch, tmp_path, capsys, method, code
):
    """Ten cubic steps are too few for small singular values."""
    linear = Linear(rng)
    recipe = Recipe("linear", linear.build, linear.batches, (1, 3), rate=1e-2)
    monkeypatch.setattr(captures, "SMALL", (recipe,))
    path = tmp_path / "quality.json"
    assert quality.main(["--small", "--methods", method, f"--json={path}"]) == code
    content = json.loads(path.read_text())
    assert {r["source"] for r in content["rows"]} == {"linear", SYNTHETIC}
    assert bool(content["problems"]) == bool(code)
    output = capsys.readouterr().out
    assert ("breach:" in output) == bool(code)
    assert "all captures" in output


def test_a_table_shows_means_and_the_largest_ratio():
    rows = [row(0.1), row(0.3), row(0.5, base=0.0)]
    assert quality_report.worst_ratio(rows, "default") == pytest.approx(1.5)
    table = quality_report.error_table(rows, ["default", BASELINE])
    assert next(iter(table.columns[2].cells)) == "0.3000 (1.500)"


def test_an_unknown_dtype_is_refused(capsys):
    with pytest.raises(SystemExit):
        quality.main(["--methods", "you:float8"])
    assert "the dtypes are" in capsys.readouterr().err
