"""Sums in blocks: the same polynomial, with more digits where directions lack."""

import keras
import numpy as np
import pytest
from keras import ops
from numpy_carrier import NumpyOps
from onnx_runtimes import RUNTIMES
from oracle import polar_by_svd

from keras_muon import SCHEDULES, Muon, Schedule, matrix_optimizer, orthogonalize
from keras_muon.export import newton_schulz as graph
from keras_muon.newton_schulz import newton_schulz
from keras_muon.plan import Blocks, Plan
from keras_muon.plan_choice import BLOCKS, LARGEST_BLOCKED, plan_for
from keras_muon.planning import planned, polar_factor
from keras_muon.products import edges_of

JORDAN = SCHEDULES["jordan"].take()
SEEDS = range(8)


def of_rank(rank, shape, seed):
    """A float32 matrix, or stack, with so many equal singular values."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    u, _, vt = np.linalg.svd(noise, full_matrices=False)
    return (u[..., :rank] @ vt[..., :rank, :]).astype("float32")


@pytest.mark.parametrize(
    ("schedule", "fans", "dtype", "segments"),
    [
        ("jordan", (64, 96), "float32", 2),  # slopes of 485, 141 and 41
        ("you", (64, 96), "float32", 2),
        ("polar_express", (96, 64), "float32", 2),
        ("quintic", (64, 96), "float32", 3),  # 537, 286, 153 and 81
        ("cubic", (64, 96), "float32", None),  # 58
        ("jordan", (128, 512), "float32", 1),  # two segments, of 485 and 12
        ("jordan", (LARGEST_BLOCKED, 600), "float32", 2),
        ("jordan", (LARGEST_BLOCKED + 1, 600), "float32", None),
        ("jordan", (2, 3), "float32", 2),
        ("jordan", (1, 64), "float32", None),
        ("jordan", (64, 96), "float64", None),
        ("jordan", (64, 96), "bfloat16", None),
        ("auto", (64, 96), "float32", None),
        ("auto", (384, 384), "float32", None),
    ],
    ids=str,
)
def test_steep_steps_of_small_float32_matrices_are_blocked(
    schedule, fans, dtype, segments
):
    plan = plan_for(*fans, SCHEDULES[schedule], dtype, blocked=True)
    assert (plan.blocks.segments if plan.blocks else None) == segments
    assert plan_for(*fans, SCHEDULES[schedule], dtype).blocks is None
    if segments:
        starts, ends = zip(*plan.blocks.edges, strict=True)
        assert starts == (0, *ends[:-1])
        assert ends[-1] == min(fans)
        assert len(ends) == min(4, *fans)


def test_training_does_not_pay_for_digits(monkeypatch):
    """The optimizer's plans have no blocks, where `orthogonalize` has some."""
    made = []

    def recording(*arguments, **others):
        made.append(planned(*arguments, **others))
        return made[-1]

    monkeypatch.setattr(matrix_optimizer, "planned", recording)
    layers = [keras.Input((16,)), keras.layers.Dense(24), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    optimizer = Muon.for_model(model, schedule="jordan", compute_dtype="float32")
    optimizer.build(model.trainable_variables)
    optimizer.describe(print_fn=str)
    assert [(p.fan_in, p.fan_out, p.blocks) for p in made] == [(16, 24, None)]
    arguments = ((16, 24), SCHEDULES["jordan"], None, "float32", "float32")
    assert planned(*arguments, blocked=True).blocks is not None


@pytest.mark.parametrize(
    "shape", [(24, 40), (40, 24), (5, 5), (3, 9), (2, 24, 40), (2, 3, 9, 5)], ids=str
)
@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("name", ["jordan", "quintic"])
def test_blocks_are_the_same_polynomial(rng, name, count, shape):
    """In float64 to its last digits, in as many segments as the plan says."""
    x, triples = rng.standard_normal(shape), SCHEDULES[name].take(5)
    blocks = Blocks(count, edges_of(min(shape[-2:]), BLOCKS))
    segments = tuple((triple,) for triple in triples)
    plan = Plan(*shape[-2:], segments, "float64", blocks=blocks)
    carrier = NumpyOps()
    result = newton_schulz(x, plan, carrier)
    # Largest error seen 7e-14; the first power of two wrong is off by 0.1 and more.
    np.testing.assert_allclose(result, polar_by_svd(x, triples), rtol=0, atol=1e-12)
    verbs = [verb for verb, _ in carrier.called]
    assert (verbs.count("blocked"), verbs.count("applied")) == (count, 5 - count)
    assert {e for verb, e in carrier.called if verb == "blocked"} == {blocks.edges}


def without_blocks(x):
    """The same steps on the backend in use, each product in one go."""
    plan = plan_for(*x.shape[-2:], SCHEDULES["jordan"], "float32", shared=False)
    return polar_factor(ops.convert_to_tensor(x), plan)


def graph_of(x, method):
    """ "planned" has no blocks, and on few rows the same steps otherwise."""
    batch = x.shape[0] if x.ndim == 3 else None
    return graph(x.shape[-2:], batch=batch, method=method)


WAYS = {
    "backend": (
        lambda x: orthogonalize(x, "jordan", compute_dtype="float32"),
        without_blocks,
    ),
    **{
        name: (
            lambda x, run=run: run(graph_of(x, "standard"), x),
            lambda x, run=run: run(graph_of(x, "planned"), x),
        )
        for name, run in RUNTIMES.items()
    },
}
LACKING = [(1, (64, 96)), (2, (96, 64)), (8, (3, 48, 96)), (1, (2, 96, 48))]


@pytest.mark.parametrize(("rank", "shape"), LACKING, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_digits_stay_where_directions_lack(way, rank, shape):
    """At most 5e-6 from the exact answer, where one sum each is 9.2e-6 from it.

    Seen at most 3.9e-6, and 0.39 to 0.71 of the error.
    """
    blocked, whole = WAYS[way]
    errors = {blocked: [], whole: []}
    for seed in SEEDS:
        x = of_rank(rank, shape, seed)
        exact = polar_by_svd(x, JORDAN)
        for function, found in errors.items():
            result = ops.convert_to_numpy(function(x))
            assert result.dtype == np.float32
            found.append(np.abs(result - exact).max())
    assert max(errors[blocked]) <= 5e-6
    assert np.median(errors[blocked]) <= 0.8 * np.median(errors[whole])


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


def test_a_slope_that_is_a_power_of_two_leaves_x_as_it_is(rng):
    """Then nothing of the first term is left for the blocks."""
    schedule = Schedule(((4.0, -6.0, 2.9), (3.0, -3.0, 1.0)), 6, "repeat")
    x = rng.standard_normal((24, 40)).astype("float32")
    given = ops.convert_to_tensor(x)
    result = ops.convert_to_numpy(orthogonalize(given, schedule))
    expected = polar_by_svd(x, schedule.take())
    np.testing.assert_allclose(result, expected, rtol=0, atol=4e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(given), x)
