"""Layers declare their views: by a method of their own, or by a registration."""

import warnings

import keras
import numpy as np
import pytest

from keras_muon import MatrixView, Muon, declared_views, register_views

layers = keras.layers
TRANSPOSED = {"in_axes": (1,), "out_axes": (0,)}
VIEWS = {
    "w": TRANSPOSED,
    "table": "adamw",
    "experts": MatrixView((3, 8, 12), (1,), (2,), (0,)),
}


@pytest.fixture(autouse=True)
def _own_registrations(monkeypatch):
    """What a test registers is gone afterwards."""
    monkeypatch.setattr(declared_views, "_registered", {})


class Plain(layers.Layer):
    """A layer of a library: (out, in), a table, and a stack of matrices."""

    def build(self, input_shape):
        width = input_shape[-1]
        self.w = self.add_weight((12, width), name="w")
        self.table = self.add_weight((8, 5), name="table")
        self.experts = self.add_weight((3, width, 12), name="experts")

    def call(self, x):
        stack = keras.ops.einsum("bi,eio->bo", x, self.experts)
        return keras.ops.matmul(x, keras.ops.transpose(self.w)) + stack


class Own(Plain):
    """The same layer by somebody who knows what it does."""

    def muon_views(self):
        return VIEWS


def routes_of(layer):
    model = keras.Sequential([keras.Input((8,)), layer, layers.Dense(4, name="head")])
    optimizer = Muon.for_model(model)
    optimizer.build(model.trainable_variables)
    return {route.path.split("/")[-1]: route for route in optimizer.routes[:3]}


def check(routes, origin):
    assert routes["w"].matrix_view.matrix_shape == (1, 8, 12)
    assert routes["w"].matrix_view.in_axes == (1,)
    assert routes["experts"].matrix_view.matrix_shape == (3, 8, 12)
    assert [routes[name].rule for name in ("w", "experts", "table")] == [
        "muon",
        "muon",
        "adamw",
    ]
    assert all(route.certain and origin in route.reason for route in routes.values())


def test_a_method_of_the_layer_declares_its_views():
    """No warning, the true axes, and the reason says who declared it."""
    check(routes_of(Own(name="own")), "Own.muon_views")


@pytest.mark.parametrize("as_function", [False, True], ids=["dictionary", "function"])
def test_a_registration_declares_them_for_others(as_function):
    """For a class that one cannot edit, and for its subclasses."""
    register_views(Plain, (lambda layer: VIEWS) if as_function else VIEWS)
    check(routes_of(Plain(name="plain")), "register_views(Plain)")

    class Derived(Plain):
        pass

    check(routes_of(Derived(name="derived")), "register_views(Plain)")


def test_the_nearest_class_decides():
    """A subclass that speaks for itself is heard before its parent's registration."""
    register_views(Plain, {"w": "adamw"})
    assert routes_of(Own(name="own"))["w"].rule == "muon"
    register_views(Own, {"w": "adamw"})
    with pytest.warns(UserWarning, match="without a proof"):
        assert routes_of(Own(name="own"))["w"].rule == "adamw"


def test_what_is_not_declared_is_judged_as_before():
    """Variables that the declaration leaves out are open, and listed."""
    register_views(Plain, {"w": TRANSPOSED, "table": "adamw"})
    with pytest.warns(UserWarning, match="leaves 1 variables") as caught:
        routes = routes_of(Plain(name="plain"))
    assert "plain/experts" in str(caught[0].message)
    assert not routes["experts"].certain


def test_a_declaration_wins_over_a_known_type():
    """Whoever derives from a layer of Keras may know better."""

    class Backwards(layers.Dense):
        def muon_views(self):
            return {"kernel": TRANSPOSED, "bias": "adamw"}

    model = keras.Sequential(
        [keras.Input((8,)), Backwards(6, name="back"), layers.Dense(4)]
    )
    optimizer = Muon.for_model(model)
    optimizer.build(model.trainable_variables)
    assert optimizer.routes[0].matrix_view.in_axes == (1,)
    assert optimizer.routes[0].matrix_view.matrix_shape == (1, 6, 8)


def test_the_declared_view_is_the_one_that_is_orthogonalized():
    """One step along the expert axis: every expert's change is its own polar factor."""
    layer = Own(name="own")
    model = keras.Sequential([keras.Input((8,)), layer, layers.Dense(4)])
    before = keras.ops.convert_to_numpy(layer.experts)
    arguments = {"weight_decay": None, "scaling": "naive", "routes": {".*w": "adamw"}}
    optimizer = Muon.for_model(model, learning_rate=1.0, momentum=0.0, **arguments)
    numbers = np.random.default_rng(0)
    optimizer.apply(
        [
            keras.ops.cast(numbers.standard_normal(v.shape), "float32")
            for v in model.trainable_variables
        ],
        model.trainable_variables,
    )
    change = before - keras.ops.convert_to_numpy(layer.experts)
    values = np.linalg.svd(change, compute_uv=False)
    # The default schedule takes singular values to within 0.3 of 1; a view that mixed
    # the experts would leave three values of sizes below 0.7 in each.
    assert values.shape == (3, 8)
    assert np.abs(values - 1).max() < 0.3


# What can be said without a layer, and what shows when there is one.
ALWAYS_WRONG = {
    "unknown rule": ({"w": "sgd"}, r"\['w'\].? must be 'adamw', a MatrixView, or"),
    "the other rule": ({"w": "muon"}, r"\['w'\].? must be 'adamw', a MatrixView, or"),
    "misspelt axes": ({"w": {"in": (0,), "out_axes": (1,)}}, "axes of .*'in'"),
    "missing axes": ({"w": {"in_axes": (0,)}}, "both in_axes and out_axes"),
}
BAD = {
    "misspelt variable": ({"wieght": "adamw"}, "'wieght'.*'w', 'table', 'experts'"),
    "axes that do not cover": (
        {"experts": {"in_axes": (0,), "out_axes": (1,)}},
        r"\['experts'\] is no view of \(3, 8, 12\)",
    ),
    "another shape": ({"w": MatrixView((4, 4), (0,), (1,))}, "is a view of shape"),
    "no dictionary": (lambda layer: ["w"], "must return a dictionary"),
    **{
        name: (lambda layer, views=views: views, message)
        for name, (views, message) in ALWAYS_WRONG.items()
    },
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_declaration_is_refused_by_its_origin(name):
    """The message leads to the declaration, not into the package."""
    views, message = BAD[name]
    register_views(Plain, views)
    with pytest.raises(ValueError, match=message):
        routes_of(Plain(name="plain"))


@pytest.mark.parametrize(
    ("layer_type", "views", "message"),
    [
        ("Plain", {}, "`layer_type` must be a subclass of keras.Layer"),
        (int, {}, "`layer_type` must be a subclass"),
        (Plain, ["w"], "`views` must be a dictionary"),
    ],
    ids=["name", "no layer", "list"],
)
def test_a_wrong_registration_is_refused_at_once(layer_type, views, message):
    """Before any model is built."""
    with pytest.raises(TypeError, match=message):
        register_views(layer_type, views)


@pytest.mark.parametrize("name", ALWAYS_WRONG)
def test_what_no_layer_makes_right_is_refused_when_it_is_registered(name):
    views, message = ALWAYS_WRONG[name]
    with pytest.raises(ValueError, match=message):
        register_views(Plain, views)


def test_strict_refuses_what_is_not_proven():
    """The same list as the warning's, as an error, by model and by bare optimizer."""
    model = keras.Sequential([keras.Input((8,)), Plain(name="plain")])
    message = "(?s)`strict` is True.*plain/w.*plain/experts.*register_views"
    with pytest.raises(ValueError, match=message):
        Muon.for_model(model, strict=True)
    with pytest.raises(ValueError, match=message):
        Muon(strict=True).build(model.trainable_variables)


def test_strict_accepts_what_is_decided():
    """By a declaration or by the user's patterns."""
    model = keras.Sequential([keras.Input((8,)), Plain(name="plain")])
    Muon.for_model(model, strict=True, exclude=[".*plain/.*"])
    model = keras.Sequential([keras.Input((8,)), Own(name="own"), layers.Dense(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Muon(strict=True).build(model.trainable_variables)
