"""The probes of real models: right views pass, and every other view is refused.

One small layer of each kind, with extents that cannot tell in from out where its
architecture allows it. All assignments of axes to batch, in and out are tried.
"""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from layer_maps import EXPERTS, linear_maps
from prescribed_kernels import REFUSED, TOLERANCE, error, prescribed
from real_catalogue import build

from keras_muon import MatrixView

layers = keras.layers

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings(
        # Keras on torch, under NumPy 2, in convert_to_numpy.
        "ignore:__array__ implementation doesn't accept a copy keyword:"
        "DeprecationWarning"
    ),
]


# Name: layer, shape that it is built for, its variable, axes (batch, in, out).
CASES = {
    "Dense": (layers.Dense(5), (None, 5), "kernel", ((), (0,), (1,))),
    "Dense, tall": (layers.Dense(3), (None, 5), "kernel", ((), (0,), (1,))),
    "EinsumDense": (
        layers.EinsumDense("abc,cde->abde", (None, 2, 2)),
        (None, 3, 4),
        "kernel",
        ((), (0,), (1, 2)),
    ),
    "Gemma's heads first": (
        layers.EinsumDense("btd,ndh->btnh", (None, 2, 2)),
        (None, 3, 4),
        "kernel",
        ((), (1,), (0, 2)),
    ),
    "EinsumDense, transposed": (
        layers.EinsumDense("abc,dc->abd", (None, 4)),
        (None, 3, 4),
        "kernel",
        ((), (1,), (0,)),
    ),
    "EinsumDense of experts": (
        layers.EinsumDense("bed,edf->bef", (3, 4)),
        (None, 3, 4),
        "kernel",
        ((0,), (1,), (2,)),
    ),
    "Conv1D": (layers.Conv1D(4, 2), (None, 9, 2), "kernel", ((), (0, 1), (2,))),
    "Conv2D, strided, same": (
        layers.Conv2D(4, 2, strides=2, padding="same"),
        (None, 9, 9, 3),
        "kernel",
        ((), (0, 1, 2), (3,)),
    ),
    "Conv1D of 2 groups": (
        layers.Conv1D(8, 2, groups=2),
        (None, 9, 4),
        "kernel",
        ((2,), (0, 1), (3,)),
    ),
    "Conv3D": (
        layers.Conv3D(3, (1, 2, 2), dilation_rate=2),
        (None, 9, 9, 9, 2),
        "kernel",
        ((), (0, 1, 2, 3), (4,)),
    ),
    "Conv1DTranspose": (
        layers.Conv1DTranspose(2, 2, strides=2),
        (None, 9, 4),
        "kernel",
        ((), (2,), (0, 1)),
    ),
    "Conv2DTranspose": (
        layers.Conv2DTranspose(2, (1, 2), padding="same"),
        (None, 9, 9, 4),
        "kernel",
        ((), (3,), (0, 1, 2)),
    ),
    "SeparableConv2D": (
        layers.SeparableConv2D(4, 1),
        (None, 9, 9, 4),
        "pointwise_kernel",
        ((), (0, 1, 2), (3,)),
    ),
    "SimpleRNN": (
        layers.SimpleRNNCell(4),
        (None, 4),
        "recurrent_kernel",
        ((), (0,), (1,)),
    ),
    "LSTM": (layers.LSTMCell(3), (None, 12), "kernel", ((), (0,), (1,))),
    "LSTM's state": (
        layers.LSTMCell(3),
        (None, 5),
        "recurrent_kernel",
        ((), (0,), (1,)),
    ),
    "GRU": (layers.GRUCell(3), (None, 9), "kernel", ((), (0,), (1,))),
    "GRU's state": (layers.GRUCell(3), (None, 5), "recurrent_kernel", ((), (0,), (1,))),
    "ConvLSTM1D": (
        layers.ConvLSTM1D(2, 3),
        (None, 4, 9, 3),
        "kernel",
        ((), (0, 1), (2,)),
    ),
    "ConvLSTM1D's state": (
        layers.ConvLSTM1D(2, 3),
        (None, 4, 9, 3),
        "recurrent_kernel",
        ((), (0, 1), (2,)),
    ),
}


def probed(layer, shape, name, axes):
    """The layer that owns the variable, the variable, and its view."""
    if not layer.built:
        layer.build(shape)
    layer = getattr(layer, "cell", layer)
    variable = next(v for v in layer.weights if v.name == name)
    factors = tuple(variable.shape)
    groups = getattr(layer, "groups", 1)
    if groups > 1:
        factors = (*factors[:-1], groups, factors[-1] // groups)
    batch, inputs, outputs = axes
    view = MatrixView(tuple(variable.shape), inputs, outputs, batch, factors)
    return layer, variable, view


def error_of(layer, variable, view, rng):
    kernel, lengths = prescribed(view, rng)
    variable.assign(kernel)
    return error(view, lengths, linear_maps(layer, variable))


def other_views(view):
    """All views that put some axis of extent 2 or more elsewhere."""
    long = [axis for axis, extent in enumerate(view.factors) if extent > 1]
    for places in itertools.product(range(3), repeat=len(long)):
        if not {1, 2} <= set(places):
            continue
        lists = [[], [a for a in range(len(view.factors)) if a not in long], []]
        for axis, place in zip(long, places, strict=True):
            lists[place].append(axis)
        batch, inputs, outputs = map(tuple, lists)
        other = dataclasses.replace(
            view, batch_axes=batch, in_axes=inputs, out_axes=outputs
        )
        if any(set(p) & set(long) != set(q) & set(long) for p, q in axes(view, other)):
            yield other


def axes(first, second):
    return [
        (getattr(first, name), getattr(second, name))
        for name in ("batch_axes", "in_axes", "out_axes")
    ]


def check_all_views(layer, variable, view, rng):
    assert error_of(layer, variable, view, rng) < TOLERANCE
    others = list(other_views(view))
    assert others
    for other in others:
        assert error_of(layer, variable, other, rng) > REFUSED, other


@pytest.mark.parametrize("name", CASES)
def test_only_the_right_view_passes(name, rng):
    """Swapped, moved or forgotten axes make a layer with another Gram matrix."""
    check_all_views(*probed(*CASES[name]), rng)


@pytest.mark.parametrize("part", ["gate", "intermediate", "output"])
def test_experts_are_told_apart(part, rng):
    """keras-hub's bank of experts, with as many experts as features as units."""
    _, owners = build("Mixtral")
    bank = next(o for o in owners.values() if type(o).__name__ == EXPERTS)
    layer = type(bank)(num_experts=4, hidden_dim=4, intermediate_dim=4)
    axes = ((0,), (1,), (2,))
    name = f"expert_feedforward_{part}_dense"
    check_all_views(*probed(layer, (None, 4), name, axes), rng)


def test_a_kernel_without_prescribed_matrices_is_refused(rng):
    """The comparison itself can fail: a random kernel is not orthogonal."""
    layer, variable, view = probed(*CASES["Dense"])
    _, lengths = prescribed(view, rng)
    variable.assign(rng.normal(size=variable.shape).astype("float32"))
    assert error(view, lengths, linear_maps(layer, variable)) > REFUSED
    assert np.isfinite(error(view, lengths, linear_maps(layer, variable)))
