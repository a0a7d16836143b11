"""Split products: the same polynomial, with more digits where directions lack."""

import keras
import numpy as np
import pytest
from compiled_functions import compiled
from keras import ops
from numpy_carrier import NumpyOps
from onnx_runtimes import RUNTIMES
from oracle import polar_by_svd

from keras_muon import SCHEDULES, Muon, known_buckets, orthogonalize
from keras_muon.export import newton_schulz as graph
from keras_muon.newton_schulz import newton_schulz
from keras_muon.plan import Plan
from keras_muon.plan_choice import plan_for
from keras_muon.planning import carrier, planned, polar_factor
from keras_muon.split_choice import LARGEST_SPLIT
from keras_muon.split_products import BITS_OF_FACTOR, BITS_OF_X, applied_split

JORDAN = SCHEDULES["jordan"].take()


@pytest.mark.parametrize(
    ("schedule", "fans", "dtype", "split"),
    [
        ("jordan", (64, 96), "float32", 2),  # slopes of 485, 141 and 41
        ("you", (64, 96), "float32", 2),
        ("polar_express", (96, 64), "float32", 2),
        ("quintic", (64, 96), "float32", 3),  # 537, 286, 153 and 81
        ("cubic", (64, 96), "float32", 0),  # 58
        ("jordan", (128, 512), "float32", 1),  # two segments, of 485 and 12
        ("jordan", (LARGEST_SPLIT, 600), "float32", 2),
        ("jordan", (LARGEST_SPLIT + 1, 600), "float32", 0),
        ("jordan", (2, 3), "float32", 2),
        ("jordan", (1, 64), "float32", 0),
        ("jordan", (64, 96), "float64", 0),
        ("jordan", (64, 96), "bfloat16", 0),
        ("auto", (64, 96), "float32", 0),
        ("auto", (384, 384), "float32", 0),
    ],
    ids=str,
)
def test_steep_products_of_small_float32_matrices_are_split(
    schedule, fans, dtype, split
):
    plan = plan_for(*fans, SCHEDULES[schedule], dtype, split=True)
    assert plan.split == split
    assert plan_for(*fans, SCHEDULES[schedule], dtype).split == 0


def test_training_does_not_pay_for_digits(monkeypatch):
    """The optimizer's plans split nothing, where `orthogonalize` does."""
    made = []

    def recording(*arguments, **others):
        made.append(planned(*arguments, **others))
        return made[-1]

    monkeypatch.setattr(known_buckets, "planned", recording)
    layers = [keras.Input((16,)), keras.layers.Dense(24), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    optimizer = Muon.for_model(model, schedule="jordan", compute_dtype="float32")
    optimizer.build(model.trainable_variables)
    optimizer.describe(print_fn=str)
    assert [(p.fan_in, p.fan_out, p.split) for p in made] == [(16, 24, 0)]
    arguments = ((16, 24), SCHEDULES["jordan"], None, "float32", "float32")
    assert planned(*arguments, split=True).split == 2


@pytest.mark.parametrize(
    "shape", [(24, 40), (40, 24), (5, 5), (3, 9), (2, 24, 40), (2, 3, 9, 5)], ids=str
)
@pytest.mark.parametrize("split", [1, 3, 5])
@pytest.mark.parametrize("name", ["jordan", "quintic"])
def test_split_products_are_the_same_polynomial(rng, name, split, shape):
    """In float64 to its last digits, in as many segments as the plan says."""
    x, triples = rng.standard_normal(shape), SCHEDULES[name].take(5)
    segments = tuple((triple,) for triple in triples)
    plan = Plan(*shape[-2:], segments, "float64", split=split)
    numpy_ops = NumpyOps()
    result = newton_schulz(x, plan, numpy_ops)
    # Largest error seen 2.5e-14; without one of the four parts 1e-5 and more.
    np.testing.assert_allclose(result, polar_by_svd(x, triples), rtol=0, atol=1e-12)
    verbs = [verb for verb, _ in numpy_ops.called]
    assert verbs.count("on_grid") == 2 * split
    assert verbs.count("fused") == 2 * split


@pytest.mark.parametrize("slope", [0.25, 0.9, 1.0, 1.5, 2.0, 3.4445, 4.0, 8.2, 41.0])
@pytest.mark.parametrize("side", ["in", "out"])
def test_the_coarse_part_is_exact(rng, side, slope):
    """In float32: the same as in float64, whatever the slope."""
    shape = (24, 40) if side == "in" else (40, 24)
    x = rng.uniform(-1.0, 1.0, shape).astype("float32")
    noise = rng.standard_normal((24, 24))
    total = (slope * (noise + noise.T) / 40).astype("float32")
    products = []

    class Recording(NumpyOps):
        def applied(self, identity, total, x, side):
            products.append(super().applied(identity, total, x, side))
            wide = total.astype("float64"), x.astype("float64")
            products.append(super().applied(identity, *wide, side))
            return products[0]

    result = applied_split(slope, total, x, side, Recording())
    narrow, wide = products
    assert narrow.dtype == result.dtype == np.float32
    np.testing.assert_array_equal(narrow, wide)
    factor = slope * np.eye(24) + total.astype("float64")
    expected = factor @ x if side == "in" else x @ factor
    # One rounding, of half a unit in the last place; the rest has a thousandth of one.
    unit = np.spacing(np.abs(expected).max().astype("float32"))
    assert np.abs(result - expected).max() <= 0.51 * unit
    assert np.abs(narrow - expected).max() > 100 * np.spacing(np.float32(slope))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("shape", [(6, 10), (3, 10, 6)], ids=str)
def test_the_scale_makes_no_difference(rng, shape, scale):
    """Neither of a matrix, nor of one beside others in a stack; zero stays zero."""
    x = rng.standard_normal(shape).astype("float32")
    scales = np.full((*shape[:-2], 1, 1), scale, "float32")
    scales[:1] *= np.float32(1e-3)
    result = ops.convert_to_numpy(orthogonalize(x * scales, "jordan"))
    # Seen 8e-7.
    np.testing.assert_allclose(result, polar_by_svd(x, JORDAN), rtol=0, atol=4e-6)
    zero = ops.convert_to_numpy(orthogonalize(np.zeros(shape, "float32"), "jordan"))
    assert not zero.any()


def test_what_is_given_is_not_written_into(rng):
    """Also by a carrier that may write into X it is asked for again."""
    x = rng.standard_normal((24, 40)).astype("float32")
    plan = plan_for(24, 40, SCHEDULES["jordan"], "float32", split=True)
    given = ops.convert_to_tensor(x)
    orthogonalize(given, "jordan")
    np.testing.assert_array_equal(ops.convert_to_numpy(given), x)
    copied = ops.convert_to_tensor(x.copy())
    result = ops.convert_to_numpy(polar_factor(copied, plan, overwrites=True))
    np.testing.assert_allclose(result, polar_by_svd(x, JORDAN), rtol=0, atol=4e-6)


def test_x_has_the_same_bits_everywhere(rng):
    """In units of its largest entry, in a graph too: no carrier rounds twice."""
    x = rng.standard_normal((64, 96)).astype("float32")
    verbs = carrier(plan_for(64, 96, SCHEDULES["jordan"], "float32"))

    def in_units(x):
        return verbs.multiplied(x, verbs.reciprocal(verbs.largest_entry(x)))

    expected = x * (np.float32(1.0) / np.abs(x).max())
    for function in (in_units, *compiled(in_units)):
        result = ops.convert_to_numpy(function(ops.convert_to_tensor(x)))
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
def test_x_has_the_same_bits_in_a_graph(rng, runtime):
    x = rng.standard_normal((64, 96)).astype("float32")
    model = graph((64, 96))
    (node,) = [n for n in model.graph.node if n.name == "normalized/multiplied"]
    model.graph.output[0].name = node.output[0]
    result = runtime(model, x)
    np.testing.assert_array_equal(result, x * (np.float32(1.0) / np.abs(x).max()))


def test_graphs_say_what_is_split():
    text = graph((64, 96)).graph.doc_string
    assert "the first 2 steps are taken of V = U / max |U|" in text
    assert f"multiples of 2^-{BITS_OF_X};" in text
    assert f"2^(e - {BITS_OF_FACTOR})" in text
    assert "max |U|" not in graph((64, 96), method="planned").graph.doc_string
    assert "the first 3 steps" in graph((9, 8), schedule="quintic").graph.doc_string
