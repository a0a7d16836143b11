"""Bad arguments are refused by name, with what was received and what is allowed."""

import inspect
import re

import keras
import numpy as np
import pytest

from keras_muon import Muon
from keras_muon.base_arguments import BASE_ARGUMENTS, OTHER_NAMES, VARIABLES

NAN = float("nan")

# What collects all other arguments is none.
KIND = {"base_arguments"}

# (argument, a bad value, what the message says is allowed)
OWN = [
    ("learning_rate", "fast", "a float, a LearningRateSchedule or a callable"),
    ("learning_rate", None, "a float, a LearningRateSchedule or a callable"),
    ("learning_rate", True, "a number"),
    ("learning_rate", -0.1, "[0, inf)"),
    ("learning_rate", NAN, "[0, inf)"),
    ("momentum", 1.0, "[0, 1)"),
    ("momentum", -0.1, "[0, 1)"),
    ("momentum", NAN, "[0, 1)"),
    ("momentum", "0.9", "a number"),
    ("momentum", None, "a number"),
    ("nesterov", 1, "True or False"),
    ("nesterov", "yes", "True or False"),
    ("weight_decay", -0.1, "[0, inf)"),
    ("weight_decay", False, "None for no decay"),
    ("weight_decay", "same", "None for no decay"),
    ("scaling", "moonlit", "'naive', 'original', 'mup', 'moonlight'"),
    ("scaling", None, "'naive', 'original', 'mup', 'moonlight'"),
    ("rms", 0.0, "(0, inf)"),
    ("rms", "0.2", "a number"),
    ("schedule", "yuo", "did you mean 'you'?"),
    ("schedule", 5, "Schedule(coefficients=((a, b, c), ...))"),
    ("schedule", {"coefficient": [[1.5, -0.5, 0.0]]}, "coefficients"),
    ("ns_steps", 0, "at least 1"),
    ("ns_steps", 2.5, "a whole number"),
    ("ns_steps", True, "a whole number"),
    ("ns_steps", 9, "5 steps"),
    ("compute_dtype", "float31", "did you mean 'float32'?"),
    ("compute_dtype", None, "'auto', 'float32', 'float64', 'bfloat16', 'float16'"),
    ("adam_learning_rate", -0.1, "[0, inf)"),
    ("adam_learning_rate", "same", "a float, a LearningRateSchedule or a callable"),
    ("adam_learning_rate", {"share": 0.1}, '{"ratio": x}'),
    ("adam_beta_1", 1.0, "[0, 1)"),
    ("adam_beta_1", "high", "a number"),
    ("adam_beta_2", 1.0, "[0, 1)"),
    ("adam_beta_2", None, "a number"),
    ("adam_epsilon", -1e-7, "[0, inf)"),
    ("adam_epsilon", "small", "a number"),
    ("adam_weight_decay", -0.1, "[0, inf)"),
    ("adam_weight_decay", "sane", "'same'"),
    ("exclude", 3, "regular expression"),
    ("routes", "muon", "a dictionary from patterns to rules, or a list"),
    ("routes", 3, "a dictionary from patterns to rules, or a list"),
    ("routes", [3], "a list of routes"),
    ("routes", [{"path": "kernel"}], "a list of routes"),
    ("batched", "yes", "'auto'"),
    ("batched", 1, "True"),
    ("strict", "yes", "True or False"),
    ("nonfinite", "ignore", "'propagate', 'skip'"),
    ("nonfinite", None, "'propagate', 'skip'"),
    ("exclude", "(", "regular expression"),
    ("routes", [], "None has the routes found"),
]

# Arguments of the base class of Keras that this class documents as its own.
BASE = [
    ("name", 3, "a string"),
    ("clipnorm", "high", "number"),
    ("clipnorm", -1.0, "0"),
    ("clipvalue", "high", "number"),
    ("clipvalue", -1.0, "0"),
    ("global_clipnorm", "high", "number"),
    ("global_clipnorm", -1.0, "0"),
    ("use_ema", "yes", "True or False"),
    ("ema_momentum", 2.0, "[0, 1"),
    ("ema_overwrite_frequency", -1, "1"),
    ("loss_scale_factor", "high", "number"),
    ("loss_scale_factor", 0.0, "0"),
    ("gradient_accumulation_steps", 1, "2"),
    ("gradient_accumulation_steps", 2.5, "2"),
]


def label(case):
    return f"{case[0]}={case[1]!r}"


@pytest.mark.parametrize(
    ("argument", "value", "allowed"), OWN + BASE, ids=map(label, OWN + BASE)
)
def test_a_bad_value_is_refused_by_name(argument, value, allowed):
    """Name, value and what is allowed: enough to mend the call."""
    with pytest.raises((TypeError, ValueError)) as refusal:
        Muon(**{argument: value})
    message = str(refusal.value)
    assert f"`{argument}`" in message
    assert repr(value) in message
    assert allowed in message


@pytest.mark.parametrize(
    "argument", sorted(inspect.signature(Muon).parameters.keys() - KIND)
)
def test_an_array_is_refused_by_name(argument):
    """Whatever is compared with it would be compared entry by entry."""
    with pytest.raises((TypeError, ValueError), match=f"`{argument}`.*array"):
        Muon(**{argument: np.ones(3)})


@pytest.mark.parametrize("name", VARIABLES)
def test_variables_are_not_given_to_the_optimizer(name):
    """Whoever comes from torch reads who hands them over."""
    with pytest.raises(TypeError, match=f"`{name}`: .*model.compile"):
        Muon(**{name: []})


def test_a_name_that_is_like_no_other_suggests_none():
    """A guess would lead away."""
    with pytest.raises(TypeError, match=r"argument of Muon: 'use_cautious'\. Known"):
        Muon(use_cautious=True)


@pytest.mark.parametrize("argument", ["learning_rate", "adam_learning_rate"])
def test_a_callable_rate_takes_no_arguments(argument):
    """Keras would call it in the middle of training."""
    Muon(**{argument: lambda scale=0.1: scale})
    with pytest.raises(TypeError, match=f"`{argument}` is called without arguments"):
        Muon(**{argument: lambda step: 0.1 / step})


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ({"(": "muon"}, "the pattern '\\(', which is no regular expression"),
        ({"kernel": "moun"}, r"`routes\['kernel'\]` must be 'muon', 'adamw', a Matrix"),
    ],
)
def test_bad_patterns_are_refused_before_there_are_variables(routes, message):
    """Not minutes later, when the model is built."""
    with pytest.raises(ValueError, match=message):
        Muon(routes=routes)


def test_every_argument_is_tried_above():
    """A new argument without a check fails here."""
    own = inspect.signature(Muon).parameters.keys() - {"base_arguments"}
    assert {argument for argument, *_ in OWN} == own
    assert {argument for argument, *_ in BASE} == set(BASE_ARGUMENTS)


GOOD = {
    "whole_numbers": {"learning_rate": 1, "weight_decay": 0, "rms": 1, "momentum": 0},
    "numpy": {"learning_rate": np.float32(0.5), "ns_steps": np.int64(3)},
    "zero_rate": {"learning_rate": 0.0},
    "zero_epsilon": {"adam_epsilon": 0.0},
    "one_pattern": {"exclude": "head/.*"},
    "no_patterns": {"exclude": [], "routes": {}},
    "clipping": {"clipvalue": 1.0, "use_ema": True, "ema_momentum": 1.0},
    "steps": {"schedule": "jordan", "ns_steps": 12},
}


@pytest.mark.parametrize("arguments", GOOD.values(), ids=GOOD)
def test_values_at_the_edge_are_accepted(arguments):
    """What is allowed is not refused."""
    assert isinstance(Muon(**arguments), Muon)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("momentom", "momentum"),
        ("learning_rates", "learning_rate"),
        ("clip_norm", "clipnorm"),
    ],
)
def test_an_unknown_argument_gets_a_close_match(wrong, meant):
    """Own arguments and those of the base class are both suggested."""
    with pytest.raises(TypeError, match=f"'{wrong}'; did you mean '{meant}'") as error:
        Muon(**{wrong: 0.5})
    assert "'gradient_accumulation_steps'" in str(error.value)


def test_only_the_rate_may_be_given_by_position():
    """Nobody has to remember an order."""
    with pytest.raises(TypeError, match="positional"):
        Muon(0.001, 0.9)


def test_no_proportion_to_a_rate_of_zero():
    """AdamW's rate cannot be a share of nothing."""
    with pytest.raises(ValueError, match=r"`adam_learning_rate` 0\.5 keeps") as error:
        Muon(0.0, adam_learning_rate=0.5)
    assert "`learning_rate`, which is 0" in str(error.value)


# What only the variables can tell, and what is said about it when they are known.
AT_BUILD = {
    "exclude_matches_nothing": ({"exclude": "hedd"}, ["'hedd'", "'head'"]),
    "exclude_is_no_expression": ({"exclude": "("}, ["'('", "regular expression"]),
    "routes_match_nothing": ({"routes": {"hedd": "muon"}}, ["'hedd'", "'head'"]),
    "routes_name_no_rule": (
        {"routes": {"head": "moun"}},
        ["`routes['head']`", "'moun'", "'muon', 'adamw', a MatrixView"],
    ),
    "routes_name_no_axes": (
        {"routes": {"head": {"inaxes": (0,)}}},
        ["`routes['head']`", "inaxes", "in_axes"],
    ),
    "routes_cannot_know_axes": (
        {"routes": {"cube": "muon"}},
        ["`routes['cube']`", "(2, 3, 4)", "in_axes"],
    ),
}


@pytest.mark.parametrize(("arguments", "parts"), AT_BUILD.values(), ids=AT_BUILD)
def test_bad_patterns_are_refused_once_the_variables_are_known(arguments, parts):
    """The message names the pattern, and what would do."""
    variables = [
        keras.Variable(np.ones(shape, "float32"), name=name)
        for name, shape in {"head": (4, 6), "cube": (2, 3, 4)}.items()
    ]
    with pytest.raises((TypeError, ValueError)) as refusal:
        Muon(**arguments).build(variables)
    assert [part for part in parts if part not in str(refusal.value)] == []


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_the_names_of_other_optimizers_lead_to_ours(name):
    """Whoever comes from them reads what it is called here."""
    with pytest.raises(TypeError, match=f"Unknown argument `{name}`; here it is") as e:
        Muon(**{name: 0.1})
    ours = re.findall(r"`(\w+)", str(e.value))[1:]
    assert ours
    assert set(ours) <= inspect.signature(Muon).parameters.keys()
