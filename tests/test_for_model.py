"""`Muon.for_model` and the user's patterns and tables, through the optimizer."""

import json

import keras
import pytest
from routed_models import BY_LAYERS, dense, muon_paths, small_model

from keras_muon import MatrixView, Muon, Route

layers = keras.layers


def built(model, **arguments):
    optimizer = Muon.for_model(model, **arguments)
    optimizer.build(model.trainable_variables)
    return optimizer


def test_routes_before_and_after_build():
    """The table is shown once the optimizer has its variables."""
    model = small_model()
    optimizer = Muon.for_model(model)
    assert optimizer.routes == ()
    optimizer.build(model.trainable_variables)
    assert [route.path for route in optimizer.routes] == [
        variable.path for variable in model.trainable_variables
    ]
    assert muon_paths(optimizer) == BY_LAYERS


PATTERNS = {
    "nothing": ({}, BY_LAYERS),
    "exclude one": ({"exclude": "query/kernel"}, ["hidden/kernel"]),
    "exclude several": ({"exclude": ["query/.*", "hid.*"]}, []),
    "adamw": ({"routes": {"hidden/kernel": "adamw"}}, ["query/kernel"]),
    "muon for the head": (
        {"routes": {"head/kernel": "muon"}},
        [*BY_LAYERS, "head/kernel"],
    ),
    "exclude wins": (
        {"routes": {".*/kernel": "muon"}, "exclude": "head/kernel"},
        BY_LAYERS,
    ),
    "later wins": (
        {"routes": {".*/kernel": "adamw", "query/kernel": "muon"}},
        ["query/kernel"],
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns(name):
    """What patterns decide is in the routes, with the pattern as the reason."""
    arguments, expected = PATTERNS[name]
    optimizer = built(small_model(), **arguments)
    assert muon_paths(optimizer) == expected
    changed = {r.path for r in optimizer.routes if r.reason.startswith("by the user")}
    assert changed >= set(BY_LAYERS) ^ set(expected)


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_of_a_bare_optimizer(name):
    """The same patterns, when the model is only found at build."""
    arguments, expected = PATTERNS[name]
    model, optimizer = small_model(), Muon(**arguments)
    optimizer.build(model.trainable_variables)
    assert muon_paths(optimizer) == expected


@pytest.mark.parametrize(
    "wanted",
    [
        MatrixView((4, 8, 5), in_axes=(1,), out_axes=(2,), batch_axes=(0,)),
        {"in_axes": (1,), "out_axes": (2,), "batch_axes": (0,)},
        {"in_axes": [1], "out_axes": [-1], "batch_axes": [0]},
    ],
    ids=["MatrixView", "axes", "lists"],
)
def test_another_view_for_a_kernel(wanted):
    """One matrix per head instead of one for all: 4 of 8 x 5, not 1 of 8 x 20."""
    by_layers, by_user = (
        built(small_model(), **arguments).routes[2].view
        for arguments in ({}, {"routes": {"query/kernel": wanted}})
    )
    assert by_layers.matrix_shape == (1, 8, 20)
    assert by_user.matrix_shape == (4, 8, 5)


HEADS = {
    "convolution": (layers.Conv2D(4, 1, name="head"), (1, 6, 4)),
    "transposed": (
        layers.EinsumDense("bhwc,dc->bhwd", (4, 4, 5), name="head"),
        (1, 6, 5),
    ),
    "two axes out": (
        layers.EinsumDense("bhwc,cde->bhwde", (4, 4, 2, 4), name="head"),
        (1, 6, 8),
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_muon_for_a_head_takes_the_view_of_its_layer(name):
    """The layer knows what is in and out, whatever rule it had for a head."""
    head, matrix_shape = HEADS[name]
    inputs = keras.Input((4, 4, 6))
    model = keras.Model(inputs, head(inputs))
    by_rule = built(model, routes={"head/kernel": "muon"}).routes[0].view
    assert by_rule.matrix_shape == matrix_shape


REFUSED = {
    "part of a path": ({"exclude": "query"}, "matches none.*whole paths"),
    "misspelt": ({"routes": {"hiden/kernel": "adamw"}}, "Close: .*hidden/kernel"),
    "not an expression": ({"exclude": "(query"}, "no regular expression"),
    "muon for a vector": ({"routes": {"head/bias": "muon"}}, "is no matrix"),
    "unknown rule": ({"routes": {"head/kernel": "sgd"}}, "must be 'muon', 'adamw'"),
    "view of another shape": (
        {"routes": {".*/kernel": MatrixView((6, 8), (0,), (1,))}},
        "is a view of shape",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_patterns_that_are_refused(name):
    """A mistake is told by `for_model`, and at build by a bare optimizer."""
    arguments, message = REFUSED[name]
    model = small_model()
    with pytest.raises(ValueError, match=message):
        Muon.for_model(model, **arguments)
    with pytest.raises(ValueError, match=message):
        Muon(**arguments).build(model.trainable_variables)


@pytest.mark.parametrize(
    "model", [3, "model", None, Muon, [layers.Dense(3)]], ids=lambda m: type(m).__name__
)
def test_only_models_are_models(model):
    """Anything else is refused by its type."""
    with pytest.raises(
        TypeError, match=f"keras.Model; received {type(model).__name__}"
    ):
        Muon.for_model(model)


def test_a_model_without_variables_is_refused():
    """An unbuilt model has no layers' shapes yet; a frozen one has nothing to train."""
    unbuilt, frozen = keras.Sequential([dense("hidden")], name="net"), small_model()
    frozen.trainable = False
    for model in (unbuilt, frozen):
        with pytest.raises(ValueError, match=f"{model.name}.*no trainable variables"):
            Muon.for_model(model)


def as_routes(optimizer):
    return list(optimizer.routes)


def as_json(optimizer):
    return json.loads(json.dumps([route.to_json() for route in optimizer.routes]))


def as_config(optimizer):
    return json.loads(json.dumps(optimizer.get_config()["routes"]))


@pytest.mark.parametrize("table", [as_routes, as_json, as_config])
def test_a_table_gives_the_same_routes_again(table):
    """A table decides alone: no model is needed, and none is looked for."""
    first = built(small_model(), routes={"hidden/kernel": "adamw"})
    second = Muon(routes=table(first))
    second.build(small_model().trainable_variables)
    assert second.routes == first.routes


@pytest.mark.parametrize(
    "other",
    [small_model(width=7), keras.Sequential([keras.Input((6,)), dense("other")])],
    ids=["other shapes", "other paths"],
)
def test_the_table_of_another_model_is_refused(other):
    """It is neither applied in part nor silently ignored."""
    table = built(small_model()).routes
    with pytest.raises(ValueError, match="another model"):
        Muon(routes=table).build(other.trainable_variables)


@pytest.mark.parametrize(
    "routes", ["hidden/.*", 3, Route("a", (2,), "adamw")], ids=["str", "int", "Route"]
)
def test_routes_of_a_wrong_type(routes):
    """Only dictionaries and tables are routes."""
    with pytest.raises(TypeError, match="`routes` must be"):
        Muon(routes=routes)


@pytest.mark.parametrize("exclude", [3.5, [3], [b"head"]], ids=str)
def test_exclude_of_a_wrong_type(exclude):
    """Only texts are patterns, and the message shows one."""
    with pytest.raises(TypeError, match="`exclude` must be"):
        Muon(exclude=exclude)
