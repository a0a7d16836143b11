"""The user's patterns: what they match, what they decide, which one wins."""

import pytest

from keras_muon import MatrixView, Route
from keras_muon.route_patterns import apply_patterns

VIEW = MatrixView((16, 8), (0,), (1,))
HIDDEN = Route("block_1/dense/kernel", (16, 8), "muon", VIEW, "hidden matrix")
OTHER = Route("block_2/dense/kernel", (16, 8), "muon", VIEW, "hidden matrix")
BIAS = Route("block_1/dense/bias", (8,), "adamw", reason="bias")
HEAD = Route("head/kernel", (8, 4), "adamw", reason="output head")
OPEN = Route("mix/w", (4, 6, 2), "adamw", reason="unknown layer", certain=False)
ROUTES = (HIDDEN, OTHER, BIAS, HEAD, OPEN)


def changed(routes):
    """The routes that are not as they were, by path."""
    pairs = zip(ROUTES, routes, strict=True)
    assert [new.path for new in routes] == [old.path for old in ROUTES]
    return {new.path: new for old, new in pairs if new != old}


def test_without_patterns_nothing_changes():
    """The routes of the layers stand."""
    assert changed(apply_patterns(ROUTES)) == {}
    assert changed(apply_patterns(ROUTES, exclude=[], overrides={})) == {}


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("block_1/dense/kernel", {HIDDEN.path}),
        ("block_[12]/.*kernel", {HIDDEN.path, OTHER.path}),
        (r"block_1/.*", {HIDDEN.path, BIAS.path}),
        (".*", {route.path for route in ROUTES}),
    ],
)
def test_exclude_sends_whole_matches_to_adamw(pattern, paths):
    """A pattern decides for every path that it matches from end to end."""
    routes = changed(apply_patterns(ROUTES, exclude=[pattern]))
    assert routes.keys() == paths
    for route in routes.values():
        assert (route.rule, route.certain) == ("adamw", True)
        assert route.reason == f"by the user: {pattern}"


@pytest.mark.parametrize("pattern", ["block_1", "kernel", "dense/.*", "block_1/dense"])
def test_a_part_of_a_path_is_no_match(pattern):
    """Half a path is refused, with what it would have meant."""
    with pytest.raises(ValueError, match="matches none of the 5 variables") as error:
        apply_patterns(ROUTES, exclude=[pattern])
    assert "It matches a part of 'block_1/dense/kernel'" in str(error.value)
    assert "write '.*' where anything may stand" in str(error.value)


def test_a_misspelt_path_gets_close_ones():
    """A pattern that is nowhere names the paths that it resembles."""
    with pytest.raises(ValueError, match="Close: 'head/kernel'"):
        apply_patterns(ROUTES, exclude=["haed/kernel"])
    with pytest.raises(ValueError, match="Close: 'block_1/dense/kernel', 'block_2"):
        apply_patterns(ROUTES, exclude=[r".*block_9\.dense\.kernl"])
    with pytest.raises(ValueError, match=r"There are: 'block_1/dense/kernel', .* more"):
        apply_patterns(ROUTES, overrides={"zzz": "adamw"})


@pytest.mark.parametrize("pattern", ["(", "*kernel", 5, None], ids=repr)
def test_a_pattern_must_be_a_regular_expression(pattern):
    """What cannot be compiled is refused by name."""
    with pytest.raises(ValueError, match="is no regular expression"):
        apply_patterns(ROUTES, exclude=[pattern])


def test_patterns_may_match_frozen_variables_instead():
    """A pattern that is satisfied by a variable of an earlier table is no mistake."""
    frozen = ["backbone/kernel"]
    routes = apply_patterns(ROUTES, exclude=["backbone/.*"], other_paths=frozen)
    assert changed(routes) == {}
    with pytest.raises(ValueError, match="'backbones/"):
        apply_patterns(ROUTES, exclude=["backbones/.*"], other_paths=frozen)


def test_muon_for_a_matrix_is_the_obvious_view():
    """A variable of two axes needs no more than the word."""
    route = changed(apply_patterns(ROUTES, overrides={"head/kernel": "muon"}))[
        HEAD.path
    ]
    assert route.rule == "muon"
    assert route.view == MatrixView((8, 4), in_axes=(0,), out_axes=(1,))
    assert route.reason == "by the user: head/kernel"


def test_muon_keeps_the_view_that_the_layer_gave():
    """Confirming a hidden matrix changes the reason alone."""
    by_layer = MatrixView((4, 6, 2), (1,), (0, 2))
    known = Route("mix/w", (4, 6, 2), "muon", by_layer, "hidden matrix")
    (route,) = apply_patterns([known], overrides={"mix/w": "muon"})
    assert route.view == by_layer


def test_muon_needs_axes_where_the_shape_does_not_say():
    """Kernels of three axes are refused with an example to copy."""
    path = OPEN.path
    with pytest.raises(ValueError, match="cannot be known from its shape") as error:
        apply_patterns(ROUTES, overrides={path: "muon"})
    assert f"routes={{'{path}': dict(in_axes=(0,), out_axes=(1, 2))}}" in str(
        error.value
    )


def test_muon_for_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"is no matrix\. Write a pattern that"):
        apply_patterns(ROUTES, overrides={BIAS.path: "muon"})


@pytest.mark.parametrize(
    "wanted",
    [
        MatrixView((4, 6, 2), in_axes=(1,), out_axes=(2,), batch_axes=(0,)),
        {"in_axes": (1,), "out_axes": (2,), "batch_axes": (0,)},
        {"shape": [4, 6, 2], "in_axes": [1], "out_axes": [-1], "batch_axes": [0]},
    ],
    ids=["view", "axes", "json"],
)
def test_axes_decide_what_a_kernel_is(wanted):
    """A view, its axes or its JSON make an open variable a certain hidden matrix."""
    route = changed(apply_patterns(ROUTES, overrides={"mix/w": wanted}))[OPEN.path]
    assert (route.rule, route.certain) == ("muon", True)
    assert route.matrix_view.matrix_shape == (4, 6, 2)


def test_a_view_of_another_shape_is_refused():
    """A pattern that reaches further than its view is noticed."""
    with pytest.raises(ValueError, match="is a view of shape"):
        apply_patterns(ROUTES, overrides={".*/kernel": VIEW})


@pytest.mark.parametrize("wanted", ["sgd", None, True, 5, ["muon"]], ids=repr)
def test_only_rules_views_and_axes_are_wanted(wanted):
    """Anything else is refused by the pattern that it stands under."""
    with pytest.raises(ValueError, match=r"`routes\['mix/w'\]` must be 'muon'"):
        apply_patterns(ROUTES, overrides={"mix/w": wanted})


@pytest.mark.parametrize(
    "wanted",
    [{"in_axes": (0,)}, {"in_axis": (0, 1), "out_axes": (2,)}],
    ids=["missing", "misspelt"],
)
def test_axes_that_are_missing_or_misspelt_are_refused_by_pattern(wanted):
    """The message leads to the entry of the dictionary that must be mended."""
    with pytest.raises((TypeError, ValueError), match=r"`routes\['mix/w'\]`"):
        apply_patterns(ROUTES, overrides={"mix/w": wanted})


def test_later_patterns_win():
    """The order of the dictionary decides, from general to special."""
    general_first = {".*/kernel": "adamw", "block_1/.*/kernel": "muon"}
    routes = changed(apply_patterns(ROUTES, overrides=general_first))
    assert routes[HIDDEN.path].rule == "muon"
    assert routes[OTHER.path].rule == "adamw"
    special_first = dict(reversed(general_first.items()))
    routes = changed(apply_patterns(ROUTES, overrides=special_first))
    assert routes[HIDDEN.path].rule == "adamw"


def test_exclude_wins_over_overrides():
    """What is excluded goes to AdamW whatever else is said about it."""
    routes = apply_patterns(
        ROUTES, exclude=["head/.*"], overrides={"head/kernel": "muon"}
    )
    assert changed(routes)[HEAD.path].rule == "adamw"
    assert changed(routes)[HEAD.path].reason == "by the user: head/.*"
