"""What graphs are refused, with the argument, what is allowed, and the way out."""

import pytest

from keras_muon.export import adamw_step, muon_step, newton_schulz

REFUSED = {
    "symbolic": (("m", 4), {}, ValueError, r"\['m'\]\. Pass dynamic=True"),
    "not_symbolic": ((8, 4), {"dynamic": True}, ValueError, "Name one"),
    "no_name": (("a b", 4), {"dynamic": True}, ValueError, "received 'a b'"),
    "flag": (("m", 4), {"dynamic": 1}, TypeError, "`dynamic` must be True or False"),
    "zero": ((8, 0), {}, ValueError, "`shape` must be at least 1; received 0"),
    "negative": ((-8, 4), {}, ValueError, "`shape` must be at least 1; received -8"),
    "fraction": ((8.0, 4), {}, TypeError, "`shape` must be a whole number"),
    "none": ((None, 4), {}, TypeError, "`shape` must be a whole number"),
    "one_extent": ((8,), {}, ValueError, r"two extents.*received \(8,\)"),
    "three_extents": ((2, 8, 4), {}, ValueError, "in a stack is `batch`"),
    "number": (8, {}, ValueError, "two extents of one matrix"),
    "text": ("84", {}, ValueError, "two extents of one matrix"),
    "empty_batch": ((8, 4), {"batch": 0}, ValueError, "`batch` must be at least 1"),
    "batch_like_an_extent": (
        ("n", 4),
        {"dynamic": True, "batch": "n"},
        ValueError,
        "`batch` must have a name of its own; received 'n'",
    ),
    "batch": ((8, 4), {"batch": 2.5}, TypeError, "`batch` must be a whole number"),
    "bfloat16": (
        (8, 4),
        {"dtype": "bfloat16"},
        ValueError,
        "no bfloat16 arithmetic.*emulate='bfloat16'",
    ),
    "float16": ((8, 4), {"dtype": "float16"}, ValueError, "emulate='float16'"),
    "dtype": ((8, 4), {"dtype": "flaot32"}, ValueError, "did you mean 'float32'"),
    "emulate": ((8, 4), {"emulate": "float32"}, ValueError, "Unknown `emulate`"),
    "emulate_wide": (
        (8, 4),
        {"emulate": "float16", "dtype": "float64"},
        ValueError,
        "Pass dtype='float32'",
    ),
    "early_opset": ((8, 4), {"opset": 17}, ValueError, "between 18 and 26"),
    "late_opset": ((8, 4), {"opset": 27}, ValueError, "between 18 and 26"),
    "opset": ((8, 4), {"opset": "18"}, ValueError, "received '18'"),
    "side": ((8, 4), {"side": "left"}, ValueError, "Known: 'auto', 'in', 'out'"),
    "method": ((8, 4), {"method": "plan"}, ValueError, "did you mean 'planned'"),
    "planned_open": (
        ("m", 4),
        {"method": "planned", "dynamic": True},
        ValueError,
        r"depends on the extents of a matrix; received \('m', 4\)",
    ),
    "planned_side": (
        (8, 4),
        {"method": "planned", "side": "in"},
        ValueError,
        "takes the short side; received side='in'",
    ),
    "panels_of_stack": (
        (8, 4),
        {"panels": 2, "batch": 3},
        ValueError,
        "`panels` 2 is for a single matrix; received batch=3.*pass panels=1",
    ),
    "panels_of_any_number": (
        (8, 4),
        {"panels": 4, "batch": "k"},
        ValueError,
        "received batch='k'. Leave `batch` out",
    ),
    "panels_open": (
        ("m", 4),
        {"panels": 2, "dynamic": True},
        ValueError,
        r"extents of a matrix; received \('m', 4\). Pass whole numbers, or panels=1",
    ),
    "panels": ((8, 4), {"panels": 5}, ValueError, "at most 4; received 5. More gain"),
    "no_panels": ((8, 4), {"panels": 0}, ValueError, "`panels` must be at least 1"),
    "panels_flag": ((8, 4), {"panels": True}, TypeError, "received True"),
    "schedule": ((8, 4), {"schedule": "jordn"}, ValueError, "did you mean 'jordan'"),
    "steps": ((8, 4), {"steps": 0}, ValueError, "`steps` must be at least 1"),
    "too_many": ((8, 4), {"schedule": "you", "steps": 6}, ValueError, "has 5 steps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_newton_schulz_refuses(name):
    shape, arguments, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        newton_schulz(shape, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shape": ("m", 4)}, ValueError, "symbolic extents"),
        ({"momentum": 1.0}, ValueError, "`momentum` must lie in"),
        ({"nesterov": "no"}, TypeError, "`nesterov` must be True or False"),
        ({"scaling": "moonlit"}, ValueError, "did you mean 'moonlight'"),
        ({"rms": 0.0}, ValueError, "`rms` must lie in"),
        ({"schedule": "aol"}, ValueError, "Unknown `schedule`"),
        ({"method": None}, ValueError, "Known: 'standard', 'planned'"),
        ({"dtype": "float16"}, ValueError, "emulate='float16'"),
        ({"opset": 28}, ValueError, "between 18 and 26"),
    ],
)
def test_muon_step_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        muon_step(**{"shape": (8, 4), **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shape": (8, 0)}, ValueError, "`shape` must be at least 1"),
        ({"shape": ("m",)}, TypeError, "`shape` must be a whole number"),
        ({"shape": 8}, TypeError, r"written \(8,\), a scalar \(\)"),
        ({"beta_1": 1.0}, ValueError, "`beta_1` must lie in"),
        ({"beta_2": -0.1}, ValueError, "`beta_2` must lie in"),
        ({"epsilon": "small"}, TypeError, "`epsilon` must be a number"),
        ({"dtype": "bfloat16"}, ValueError, "Unknown `dtype`"),
        ({"opset": True}, ValueError, "between 18 and 26"),
    ],
)
def test_adamw_step_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        adamw_step(**{"shape": (8,), **arguments})


def test_an_opset_that_this_onnx_does_not_know_is_refused(monkeypatch):
    """onnx 1.17, the oldest that is admitted, ends at 22."""
    monkeypatch.setattr("onnx.defs.onnx_opset_version", lambda: 22)
    with pytest.raises(ValueError, match=r"26 is newer than onnx .* up to 22\."):
        newton_schulz((8, 4), opset=26)
    assert newton_schulz((8, 4), opset=22).opset_import[0].version == 22
