"""keras-muon export: options that are refused, in one line of the same words."""

import os
import re
import shlex

import pytest
from cli_runs import refused

REFUSED = {
    "symbolic": ("--shape mx4", r"--shape has the symbolic.*Pass --dynamic for"),
    "not_symbolic": ("--shape 8x4 --dynamic", "--dynamic is for symbolic"),
    "zero": ("--shape 8x0", "--shape must be at least 1; received 0"),
    "negative": ("--shape=-8x4", "--shape must be at least 1; received -8"),
    "one": ("--shape 8", "two extents of one matrix"),
    "three": ("--shape 2x8x4", "in a stack is --batch"),
    "fraction": ("--shape 8.0x4", "'8.0' in '8.0x4' is neither a whole number"),
    "empty": ("--shape ''", "'' in '' is neither"),
    "none": ("", "arguments are required: --shape. See keras-muon export newton"),
    "batch": ("--shape 8x4 --batch 0", "--batch must be at least 1"),
    "batch_name": ("--shape 8x4 --batch 2.5", "needs a name of letters"),
    "schedule": ("--shape 8x4 --schedule jordn", "'jordan'.*write 'a,b,c;"),
    "pair": ("--shape 8x4 --schedule 1,2", "name or triples of finite numbers"),
    "nan": ("--shape 8x4 --schedule nan,1,1", "--schedule must be a name or triples"),
    "endless": (f"--shape {2**63}x4", f"--shape must be at most {2**63 - 1}"),
    "deep": (f"--shape 8x4 --batch {2**63}", f"--batch must be at most {2**63 - 1}"),
    "letters": ("--shape 8x4 --schedule a,b,c", "name or triples"),
    "unsafe": ("--shape 8x4 --schedule -1,0,0", "expected one argument"),
    "sign": ("--shape 8x4 --schedule=-1,0,0", "changes sign"),
    "too_many": ("--shape 8x4 --schedule you --steps 6", "5 steps"),
    "steps": ("--shape 8x4 --steps 0", "--steps must be at least 1"),
    "words": (
        "--shape 8x4 --steps two",
        "--steps: invalid int value: 'two'",
    ),
    "bfloat16": (
        "--shape 8x4 --dtype bfloat16",
        "no bfloat16 arithmetic.*--emulate bfloat16",
    ),
    "emulate": ("--shape 8x4 --emulate float8", "Unknown --emulate"),
    "wide": (
        "--shape 8x4 --emulate float16 --dtype float64",
        "Pass --dtype float32",
    ),
    "opset": (
        "--shape 8x4 --opset 17",
        "--opset must be a whole number between 18 and 26",
    ),
    "late": ("--shape 8x4 --opset 27", "between 18 and 26"),
    "side": ("--shape 8x4 --side left", "Known: 'auto', 'in', 'out'"),
    "panels": ("--shape 8x4 --panels 5", "--panels must be at most 4; received 5"),
    "panels_of_stack": (
        "--shape 8x4 --panels 2 --batch k",
        "--panels 2 is .*received --batch k. Leave --batch out, or pass --panels 1",
    ),
    "panels_open": (
        "--shape m,4 --dynamic --panels 2",
        "Pass whole numbers, or --panels 1",
    ),
    "verify": ("--shape 8x4 --verify torch", "invalid choice: 'torch'"),
    "unknown": ("--shape 8x4 --momentum 0.9", "unrecognized.*--momentum"),
    "cut": ("--shap 8x4", "required: --shape"),
}
REFUSED_STEPS = {
    "no_rule": ("--shape 8x4", "required: --rule"),
    "rule": ("--rule sgd --shape 8x4", "invalid choice: 'sgd'"),
    "other": (
        "--rule adamw --shape 8x4 --momentum 0.9",
        "--momentum is no option of --rule adamw",
    ),
    "flag": (
        "--rule adamw --shape 8x4 --no-nesterov",
        "--no-nesterov is no option of --rule adamw",
    ),
    "muon": (
        "--rule muon --shape 8x4 --beta-1 0.9",
        "--beta-1 is no option",
    ),
    "panels": ("--rule muon --shape 8x4 --panels 2", "unrecognized.*--panels"),
    "open": ("--rule muon --shape mx4", "symbolic extents"),
    "name": ("--rule adamw --shape m", "--shape must be a whole number"),
    "momentum": (
        "--rule muon --shape 8x4 --momentum 1",
        "--momentum must lie",
    ),
    "beta": (
        "--rule adamw --shape 8 --beta-1 1",
        "--beta-1 must lie in",
    ),
    "scaling": (
        "--rule muon --shape 8x4 --scaling moon",
        "'moonlight'",
    ),
}


@pytest.mark.parametrize(
    ("graph", "name"),
    [("newton-schulz", n) for n in REFUSED] + [("step", n) for n in REFUSED_STEPS],
)
def test_bad_options_are_refused_in_one_line(capsys, tmp_path, graph, name):
    options, message = (REFUSED if graph == "newton-schulz" else REFUSED_STEPS)[name]
    line = refused(capsys, "export", graph, tmp_path / "a.onnx", *shlex.split(options))
    assert re.search(message, line), line
    assert os.listdir(tmp_path) == []
