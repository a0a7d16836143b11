"""What a kernel does in its layer: the layer's answers to basis vectors, as matrices.

A layer is called with every basis vector of its smallest input: one token, one window
of a convolution, one state of a cell. Its answer without that to no input is one row
of the linear map. Nonlinear parts are replaced by ones, or noted before they act. No
axis of a kernel is looked at, and nothing of keras_muon is imported.
"""

import contextlib
from unittest import mock

import keras
import numpy as np

layers = keras.layers

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
CELLS = (layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell)
# These have no public type.
CONVOLUTION_CELL = type(layers.ConvLSTM1D(1, 1).cell)
EXPERTS = "MixtralMoeExperts"


def kind_of(layer):
    """The function that probes a layer, or None."""
    if type(layer).__name__ == EXPERTS:
        return experts
    kinds = {
        SEPARABLE: separable_convolution,
        TRANSPOSED: transposed_convolution,
        CONVOLUTIONS: convolution,
        (layers.EinsumDense,): einsum_dense,
        (layers.Dense,): dense,
        (CONVOLUTION_CELL,): convolution_cell,
        CELLS: cell,
    }
    found = [kind for types, kind in kinds.items() if isinstance(layer, types)]
    return found[0] if found else None


def linear_maps(layer, kernel):
    """A list of (inputs, outputs) matrices: one, or one per expert."""
    return kind_of(layer)(layer, kernel)


def dense(layer, kernel):
    return [answers(layer, (layer.input_spec.axes[-1],))]


def einsum_dense(layer, kernel):
    _, *shape = layer.get_build_config()["input_shape"]
    return [answers(layer, [extent or 1 for extent in shape])]


def convolution(layer, kernel):
    """One window. With no padding it has one output, whatever the strides are."""
    window = (*layer.kernel_size, layer.input_spec.axes[-1])
    with changed(layer, padding="valid", dilation_rate=1):
        return [answers(layer, window)]


def transposed_convolution(layer, kernel):
    """One position, whose output is a window."""
    ones = (1,) * len(layer.kernel_size)
    with changed(layer, padding="valid"):
        return [answers(layer, (*ones, layer.input_spec.axes[-1]))]


def separable_convolution(layer, kernel):
    """The part that passes a window of one on unchanged, and the pointwise part."""
    ones = (1,) * len(layer.kernel_size)
    assert layer.kernel_size == ones
    assert layer.depth_multiplier == 1
    layer.depthwise_kernel.assign(np.ones(layer.depthwise_kernel.shape, "float32"))
    return [answers(layer, (*ones, layer.input_spec.axes[-1]))]


def cell(layer, kernel):
    """What the gates receive, from the features or from the state before."""
    sizes = (layer.get_build_config()["input_shape"][-1], layer.units)
    return [gates(layer, *((size,) for size in sizes), kernel is layer.kernel)]


def convolution_cell(layer, kernel):
    """One window of the features, or a state of one window, seen from its centre."""
    features = layer.get_build_config()["input_shape"][-1]
    first = kernel is layer.kernel
    inputs = [n if first else 2 * n - 1 for n in layer.kernel_size]
    states = [1 if first else n for n in layer.kernel_size]
    shapes = ((*inputs, features), (*states, layer.filters))
    with changed(layer, padding="valid", strides=(1,) * len(inputs)):
        return [gates(layer, *shapes, first)]


def experts(layer, kernel):
    """One map per expert, with the other kernels as identities, axis 1 to axis 2."""
    variables = {v.name.split("_")[2]: v for v in layer.weights}
    for variable in variables.values():
        if variable is not kernel:
            identity = np.eye(*variable.shape[1:], dtype="float32")
            variable.assign(np.broadcast_to(identity, variable.shape))
    noted = []
    narrow, wide = sorted(variables["gate"].shape[1:])
    inputs = narrow if kernel is variables["output"] else wide
    with changed(layer, activation=noting(noted)):
        output = layer.call(tensor(np.eye(inputs, wide)))
    return list(array(noted[0] if kernel is variables["gate"] else output))


def gates(layer, input_shape, state_shape, of_inputs):
    """The answers of a cell before its activations."""
    basis, zeros = (input_shape, state_shape)[:: 1 if of_inputs else -1]
    count = int(np.prod(basis))
    received = []
    for moving in (np.eye(count), np.zeros((count, count))):
        still = np.zeros((count, *zeros))
        pair = (moving.reshape(count, *basis), still)[:: 1 if of_inputs else -1]
        others = [tensor(np.zeros((count, *state_shape)))]
        noted = []
        names = {"activation", "recurrent_activation"} & vars(layer).keys()
        with changed(layer, **dict.fromkeys(names, noting(noted))):
            layer.call(tensor(pair[0]), [tensor(pair[1]), *others])
        centre = tuple(n // 2 for n in noted[0].shape[1:-1])
        parts = [array(part)[(slice(None), *centre)] for part in noted]
        received.append(np.concatenate(parts, axis=-1))
    return without_silence(received[0] - received[1])


def without_silence(matrix):
    """The outputs that depend on the input at all: LSTM notes its new state, too."""
    return matrix[:, np.any(matrix, axis=0)]


def answers(layer, input_shape):
    """One flattened answer per basis vector of one input."""
    count = int(np.prod(input_shape))
    basis = np.eye(count).reshape(count, *input_shape)
    with changed(layer, activation=None):
        moved, still = (layer.call(tensor(x)) for x in (basis, 0 * basis))
    return (array(moved) - array(still)).reshape(count, -1)


def noting(noted):
    """An activation that notes what it receives and answers with ones."""

    def activation(x):
        noted.append(x)
        return keras.ops.ones_like(x)

    return activation


@contextlib.contextmanager
def changed(layer, **attributes):
    """The layer with some of its attributes changed."""
    with mock.patch.multiple(layer, **attributes):
        yield


def tensor(values):
    return keras.ops.convert_to_tensor(np.asarray(values, "float32"))


def array(values):
    return keras.ops.convert_to_numpy(values).astype("float64")
