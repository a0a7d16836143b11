"""Views of recurrent and separable layers, against the layers themselves.

Their outputs are not linear in the kernels because of the gates. But what the kernel
is applied to is: a layer with matrices P M, on x, is the layer with M, on x P. For the
recurrent kernel x is the state of the step before.
"""

import keras
import numpy as np
import pytest
from oracle import from_matrices, to_matrices

from keras_muon.layer_views import role_of

layers = keras.layers

pytestmark = pytest.mark.filterwarnings(
    # Keras on torch, under NumPy 2, in convert_to_numpy.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

# Largest error seen 3.8e-7 of the largest output, over all cases and backends; a
# transposed P or Q is off by 0.25 and more.
TOLERANCE = 1e-5

# Layer, input shape, shape of a state, number of states.
GATED = {
    "SimpleRNN": (layers.SimpleRNN(4), (2, 1, 5), (2, 4), 1),
    "LSTM": (layers.LSTM(4), (2, 1, 5), (2, 4), 2),
    "GRU": (layers.GRU(4), (2, 1, 5), (2, 4), 1),
    "ConvLSTM1D": (layers.ConvLSTM1D(4, 1), (2, 1, 3, 5), (2, 3, 4), 2),
    "ConvLSTM2D": (layers.ConvLSTM2D(4, 1), (2, 1, 3, 2, 5), (2, 3, 2, 4), 2),
}

# Layer, input shape, the input with each window as axes, and those axes.
WINDOWS = {
    "ConvLSTM1D": (layers.ConvLSTM1D(3, 2, strides=2), (2, 2, 4, 3), (2, 2, 2, 2, 3)),
    "ConvLSTM2D": (
        layers.ConvLSTM2D(3, 2, strides=2),
        (1, 2, 4, 2, 3),
        (1, 2, 2, 2, 1, 2, 3),
    ),
}
AXES_OF_WINDOWS = {"ConvLSTM1D": (3, 4), "ConvLSTM2D": (3, 5, 6)}


def as_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor).astype("float64")


def as_tensor(array):
    return keras.ops.convert_to_tensor(np.asarray(array, "float32"))


def distance(first, second):
    return np.abs(first - second).max() / np.abs(second).max()


def on_the_left(variable, view, p):
    """The kernel whose matrix is P M."""
    axes = (view.batch_axes, view.in_axes, view.out_axes)
    kernel = as_numpy(variable)
    return from_matrices(p @ to_matrices(kernel, *axes), kernel.shape, *axes)


def without_memory(layer):
    """Close the update gate of a GRU, which passes the old state on unchanged."""
    if isinstance(layer, layers.GRU):
        bias = np.zeros(layer.cell.bias.shape)
        bias[:, : layer.units] = -100.0
        layer.cell.bias.assign(bias.astype("float32"))


def prepared(layer, input_shape, rng):
    """An input for the layer, whose kernels are drawn small enough for its gates."""
    for name in ("kernel_initializer", "recurrent_initializer"):
        setattr(layer.cell, name, keras.initializers.Zeros())
    if not layer.built:
        layer.build(input_shape)
    for kernel in (layer.cell.kernel, layer.cell.recurrent_kernel):
        kernel.assign(rng.normal(size=tuple(kernel.shape), scale=0.3).astype("float32"))
    without_memory(layer)
    return rng.normal(size=input_shape)


@pytest.mark.parametrize("name", GATED)
def test_kernel_reads_the_features(name, rng):
    """Mixing the features of the input is multiplying the kernel on the left."""
    layer, input_shape, *_ = GATED[name]
    x = prepared(layer, input_shape, rng)
    view = role_of(layer.cell, layer.cell.kernel, layer).view
    p = rng.normal(size=(view.fan_in, view.fan_in))
    mixed, wrong = (as_numpy(layer(as_tensor(x @ m))) for m in (p, p.T))
    layer.cell.kernel.assign(on_the_left(layer.cell.kernel, view, p).astype("float32"))
    after = as_numpy(layer(as_tensor(x)))
    assert distance(after, mixed) < TOLERANCE
    assert distance(after, wrong) > 1e4 * TOLERANCE


@pytest.mark.parametrize("name", GATED)
def test_recurrent_kernel_reads_the_state(name, rng):
    """Mixing the features of the state is multiplying the recurrent kernel."""
    layer, input_shape, state_shape, count = GATED[name]
    x = as_tensor(prepared(layer, input_shape, rng))
    kernel = layer.cell.recurrent_kernel
    view = role_of(layer.cell, kernel, layer).view
    p = rng.normal(size=(view.fan_in, view.fan_in))
    state, *others = rng.normal(size=(count, *state_shape))
    others = [as_tensor(other) for other in others]

    def answer(matrix):
        initial = [as_tensor(state @ matrix), *others]
        return as_numpy(layer(x, initial_state=initial))

    mixed, wrong = answer(p), answer(p.T)
    kernel.assign(on_the_left(kernel, view, p).astype("float32"))
    after = answer(np.eye(view.fan_in))
    assert distance(after, mixed) < TOLERANCE
    assert distance(after, wrong) > 1e4 * TOLERANCE


@pytest.mark.parametrize("name", WINDOWS)
def test_kernel_of_a_recurrent_convolution_reads_windows(name, rng):
    """Its in axes are the window and the features, in this order."""
    layer, input_shape, windows = WINDOWS[name]
    x = prepared(layer, input_shape, rng)
    view = role_of(layer.cell, layer.cell.kernel, layer).view
    p = rng.normal(size=(1, view.fan_in, view.fan_in))
    axes = AXES_OF_WINDOWS[name]
    rest = tuple(a for a in range(len(windows)) if a not in axes)

    def mixed(matrix):
        stack = to_matrices(x.reshape(windows), (), rest, axes) @ matrix
        return from_matrices(stack, windows, (), rest, axes).reshape(input_shape)

    expected, wrong = (
        as_numpy(layer(as_tensor(mixed(m)))) for m in (p, p.swapaxes(1, 2))
    )
    layer.cell.kernel.assign(on_the_left(layer.cell.kernel, view, p).astype("float32"))
    after = as_numpy(layer(as_tensor(x)))
    assert distance(after, expected) < TOLERANCE
    assert distance(after, wrong) > 1e4 * TOLERANCE


@pytest.mark.parametrize(
    ("layer", "input_shape"),
    [
        (layers.SeparableConv1D(4, 3, depth_multiplier=2), (2, 7, 3)),
        (layers.SeparableConv2D(4, 2, depth_multiplier=2), (2, 4, 5, 3)),
    ],
    ids=["SeparableConv1D", "SeparableConv2D"],
)
def test_pointwise_kernel_produces_the_features(layer, input_shape, rng):
    """Multiplying it on the right multiplies the features of the output."""
    layer.depthwise_initializer = layer.pointwise_initializer = (
        keras.initializers.Ones()
    )
    if not layer.built:
        layer.build(input_shape)
    kernel = layer.pointwise_kernel
    kernel.assign(rng.normal(size=tuple(kernel.shape)).astype("float32"))
    view = role_of(layer, kernel).view
    x = as_tensor(rng.normal(size=input_shape))
    q = rng.normal(size=(4, 4))
    before = as_numpy(layer(x))
    axes = ((), view.in_axes, view.out_axes)
    after = from_matrices(to_matrices(as_numpy(kernel), *axes) @ q, kernel.shape, *axes)
    kernel.assign(after.astype("float32"))
    assert distance(as_numpy(layer(x)), before @ q) < TOLERANCE
    assert distance(as_numpy(layer(x)), before @ q.T) > 1e4 * TOLERANCE
