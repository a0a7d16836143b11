"""Routes as data: what a route may say, JSON, numbering, matching a stored table."""

import dataclasses
import json

import pytest

from keras_muon import MatrixView, Route
from keras_muon.routing import listed, match_table, numbered

KERNEL = (64, 4, 16)
VIEW = MatrixView(KERNEL, in_axes=(0,), out_axes=(2,), batch_axes=(1,))
HIDDEN = Route("block/query/kernel", KERNEL, "muon", VIEW, "hidden matrix")
BIAS = Route("block/query/bias", (4, 16), "adamw", reason="bias")
HEAD = Route("head/kernel", (64, 10), "adamw", reason="output head")
UNKNOWN = Route("x/w", (3, 3), "adamw", reason="unknown layer X", certain=False)


def variables_of(*routes):
    return [(route.path, route.shape) for route in routes]


def test_muon_needs_a_view():
    """A missing view is noticed when the route is written, not in the first step."""
    with pytest.raises(ValueError, match="'a/kernel': rule 'muon' needs a view"):
        Route("a/kernel", KERNEL, "muon")


@pytest.mark.parametrize("rule", ["Muon", "adam", "sgd", None], ids=str)
def test_there_are_two_rules(rule):
    """Any other rule is refused by name."""
    with pytest.raises(ValueError, match=r"Unknown `rule`.*Known: 'muon', 'adamw'"):
        Route("a/kernel", KERNEL, rule)


def test_a_view_must_be_made_for_the_variable():
    """A view of another shape is refused with both shapes."""
    with pytest.raises(ValueError, match=r"\(64, 4, 16\), the variable has shape \(8,"):
        Route("a/kernel", (8, 4), "muon", VIEW)


def test_matrix_view_is_an_error_where_there_is_none():
    """Code that needs a view gets one, or a sentence instead of None."""
    assert HIDDEN.matrix_view is VIEW
    with pytest.raises(ValueError, match="'head/kernel' is updated by AdamW"):
        _ = HEAD.matrix_view


@pytest.mark.parametrize("route", [HIDDEN, BIAS, UNKNOWN], ids=lambda r: r.path)
def test_json_keeps_everything(route):
    """A route survives the way through text, its view and its doubts included."""
    assert Route.from_json(json.loads(json.dumps(route.to_json()))) == route


def test_from_json_takes_a_view_as_it_is():
    """Keras may have revived the inner dictionary already."""
    assert Route.from_json(HIDDEN.to_json() | {"view": VIEW}) == HIDDEN


def test_a_route_is_a_value():
    """Routes compare, hash, and cannot be changed by accident."""
    same = Route(HIDDEN.path, [*KERNEL], "muon", VIEW, "hidden matrix")
    assert same == HIDDEN
    assert hash(same) == hash(HIDDEN)
    with pytest.raises(dataclasses.FrozenInstanceError):
        HIDDEN.rule = "adamw"


def test_numbered_counts_each_path_for_itself():
    """Equal paths get different keys, in order; nothing else changes."""
    keys = numbered(["a", "b", "a", "a", "b"])
    assert keys == [("a", 0), ("b", 0), ("a", 1), ("a", 2), ("b", 1)]
    assert numbered([]) == []


def test_match_table_finds_routes_by_path_and_not_by_position():
    """A table in another order, or with more in it, says the same."""
    table = [HEAD, BIAS, HIDDEN, UNKNOWN]
    matched = match_table(table, variables_of(HIDDEN, BIAS, HEAD))
    assert matched == [HIDDEN, BIAS, HEAD]


def test_match_table_leaves_new_variables_open():
    """What the table does not know is None, for the model to decide."""
    matched = match_table([HIDDEN], [("new/kernel", (2, 2)), *variables_of(HIDDEN)])
    assert matched == [None, HIDDEN]


def test_match_table_tells_equal_paths_apart_by_their_order():
    """The n-th variable of a path gets the n-th route of that path."""
    first = Route("dense/kernel", (8, 4), "adamw", reason="first")
    second = Route("dense/kernel", (8, 4), "adamw", reason="second")
    assert match_table([first, second], variables_of(first, second)) == [first, second]
    assert match_table([first, second], variables_of(first)) == [first]
    assert match_table([first], variables_of(first, second)) == [first, None]


def test_match_table_refuses_another_shape():
    """A path that means another variable now is not updated by an old view."""
    with pytest.raises(ValueError, match=r"'block/query/kernel' with shape") as error:
        match_table([HIDDEN], [(HIDDEN.path, (64, 8, 16))])
    assert "(64, 4, 16), but the variable has shape (64, 8, 16)" in str(error.value)
    assert "Muon.for_model(model)" in str(error.value)


@pytest.mark.parametrize("table", [[], [HIDDEN, BIAS]], ids=["empty", "foreign"])
def test_match_table_refuses_the_table_of_another_model(table):
    """A table without a single known path is a mistake, not a preference."""
    with pytest.raises(ValueError, match="`routes` describes another model") as error:
        match_table(table, variables_of(HEAD, UNKNOWN))
    assert f"none of its {len(table)} paths" in str(error.value)
    assert "('head/kernel', 'x/w')" in str(error.value)


def test_match_table_of_no_variables_is_empty():
    """An optimizer without variables takes any table."""
    assert match_table([HIDDEN], []) == []


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        ([], "none"),
        (["a"], "'a'"),
        (["a", "b", "c"], "'a', 'b', 'c'"),
        (["a", "b", "c", "d", "e"], "'a', 'b', 'c' and 2 more"),
    ],
    ids=["none", "one", "three", "five"],
)
def test_listed_shows_three_paths_and_counts_the_others(paths, text):
    """Messages stay short however large the model is."""
    assert listed(paths) == text
