"""Views against the layers themselves: a kernel's matrices multiplied by others.

If the view of a linear layer is right, its matrices M satisfy, for any Q and P,

    layer with M Q, on x   =   (layer with M, on x) Q      along the axes of out,
    layer with P M, on x   =    layer with M, on x P       along the axes of in.

Which axes of the layer's input and output those are is written here by hand. Windows
of convolutions are as wide as their strides, so that each is an axis after a reshape.
"""

from typing import NamedTuple

import keras
import numpy as np
import pytest
from oracle import from_matrices, to_matrices

from keras_muon import MatrixView
from keras_muon.layer_views import role_of

layers = keras.layers

pytestmark = pytest.mark.filterwarnings(
    # Keras on torch, under NumPy 2, in convert_to_numpy.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

# Largest error seen 2.6e-7 of the largest output, over all cases and backends; a
# transposed Q or P, and a wrong view, are off by 0.45 and more.
TOLERANCE = 1e-5


class Side(NamedTuple):
    """Where the matrices of a view are in an input or output.

    `axes` and `batch` count in `shape`, to which the tensor is reshaped first.
    """

    axes: tuple[int, ...]
    batch: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()


class Case(NamedTuple):
    layer: keras.Layer
    input_shape: tuple[int, ...]
    inputs: Side
    outputs: Side


def einsum(equation, output_shape, input_shape, inputs, outputs):
    layer = layers.EinsumDense(equation, output_shape)
    return Case(layer, input_shape, inputs, outputs)


LAST = Side((-1,))
CASES = {
    "Dense": Case(layers.Dense(4), (2, 3, 5), LAST, LAST),
    "dense": einsum("abc,cd->abd", (3, 4), (2, 3, 5), LAST, LAST),
    "query": einsum("abc,cde->abde", (3, 2, 4), (2, 3, 5), LAST, Side((2, 3))),
    "attention output": einsum(
        "abcd,cde->abe", (3, 5), (2, 3, 2, 4), Side((2, 3)), LAST
    ),
    "Gemma": einsum("btd,ndh->btnh", (3, 5, 4), (2, 3, 5), LAST, Side((2, 3))),
    "experts": einsum(
        "ebd,edf->ebf", (2, 5), (3, 2, 4), Side((2,), (0,)), Side((2,), (0,))
    ),
    "transposed": einsum("abc,dc->abd", (3, 5), (2, 3, 5), LAST, LAST),
    "ellipsis left": einsum("...x,xy->...y", (3, 4), (2, 3, 5), LAST, LAST),
    "ellipsis right": einsum(
        "ab...,bc->ac...", (5, 3), (2, 4, 3), Side((1,)), Side((1,))
    ),
    "experts with heads": einsum(
        "ebd,nedh->ebnh", (2, 2, 5), (3, 2, 4), Side((2,), (0,)), Side((2, 3), (0,))
    ),
    "out axes apart": einsum("abc,dce->aebd", (4, 3, 2), (2, 3, 5), LAST, Side((3, 1))),
    "Conv1D": Case(
        layers.Conv1D(4, 2, strides=2), (2, 6, 5), Side((2, 3), (), (2, 3, 2, 5)), LAST
    ),
    "Conv2D": Case(
        layers.Conv2D(4, (2, 3), strides=(2, 3)),
        (2, 4, 6, 5),
        Side((2, 4, 5), (), (2, 2, 2, 2, 3, 5)),
        LAST,
    ),
    "Conv3D": Case(
        layers.Conv3D(4, (1, 2, 2), strides=(1, 2, 2)),
        (2, 3, 2, 4, 2),
        Side((2, 4, 6, 7), (), (2, 3, 1, 1, 2, 2, 2, 2)),
        LAST,
    ),
    "Conv1D of 3 groups": Case(
        layers.Conv1D(12, 2, strides=2, groups=3),
        (2, 4, 6),
        Side((2, 4), (3,), (2, 2, 2, 3, 2)),
        Side((3,), (2,), (2, 2, 3, 4)),
    ),
    "Conv2D of 2 groups": Case(
        layers.Conv2D(6, 2, strides=2, groups=2),
        (2, 4, 2, 6),
        Side((2, 4, 6), (5,), (2, 2, 2, 1, 2, 2, 3)),
        Side((4,), (3,), (2, 2, 1, 2, 3)),
    ),
    "Conv1DTranspose": Case(
        layers.Conv1DTranspose(4, 2, strides=2),
        (2, 3, 5),
        LAST,
        Side((2, 3), (), (2, 3, 2, 4)),
    ),
    "Conv2DTranspose": Case(
        layers.Conv2DTranspose(4, (2, 3), strides=(2, 3)),
        (2, 2, 3, 5),
        LAST,
        Side((2, 4, 5), (), (2, 2, 2, 3, 3, 4)),
    ),
    "Conv3DTranspose": Case(
        layers.Conv3DTranspose(3, (1, 2, 2), strides=(1, 2, 2)),
        (2, 2, 1, 2, 4),
        LAST,
        Side((2, 4, 6, 7), (), (2, 2, 1, 1, 2, 2, 2, 3)),
    ),
}


def multiplied(x, side, matrices):
    """x with the axes of one side multiplied by a matrix per batch entry."""
    y = x.reshape(side.shape or x.shape)
    axes = tuple(axis % y.ndim for axis in side.axes)
    rest = tuple(a for a in range(y.ndim) if a not in (*axes, *side.batch))
    stack = to_matrices(y, side.batch, rest, axes) @ matrices
    return from_matrices(stack, y.shape, side.batch, rest, axes).reshape(x.shape)


def kernel_with(kernel, view, left=None, right=None):
    """The kernel whose matrices are left @ M @ right."""
    axes = (view.batch_axes, view.in_axes, view.out_axes)
    matrices = to_matrices(kernel.reshape(view.factors), *axes)
    matrices = matrices if left is None else left @ matrices
    matrices = matrices if right is None else matrices @ right
    return from_matrices(matrices, view.factors, *axes).reshape(kernel.shape)


def answer(layer, kernel, x):
    layer.kernel.assign(kernel.astype("float32"))
    output = layer(keras.ops.convert_to_tensor(x.astype("float32")))
    return keras.ops.convert_to_numpy(output).astype("float64")


def prepared(case, rng):
    """The layer, its view, a kernel and an input, both of the size of 1."""
    case.layer.kernel_initializer = keras.initializers.Zeros()
    if not case.layer.built:
        case.layer.build(case.input_shape)
    kernel = rng.normal(size=tuple(case.layer.kernel.shape))
    view = role_of(case.layer, case.layer.kernel).view
    return case.layer, view, kernel, rng.normal(size=case.input_shape)


def distance(first, second):
    return np.abs(first - second).max() / np.abs(second).max()


@pytest.mark.parametrize("name", CASES)
def test_out_is_what_the_layer_produces(name, rng):
    """Multiplying the kernel's matrices on the right multiplies the outputs."""
    layer, view, kernel, x = prepared(CASES[name], rng)
    q = rng.normal(size=(view.batch, view.fan_out, view.fan_out))
    before = answer(layer, kernel, x)
    after = answer(layer, kernel_with(kernel, view, right=q), x)
    outputs = CASES[name].outputs
    assert distance(after, multiplied(before, outputs, q)) < TOLERANCE
    transposed = multiplied(before, outputs, q.swapaxes(1, 2))
    assert distance(after, transposed) > 1e4 * TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_in_is_what_the_layer_sums_over(name, rng):
    """Multiplying the kernel's matrices on the left multiplies the inputs."""
    layer, view, kernel, x = prepared(CASES[name], rng)
    p = rng.normal(size=(view.batch, view.fan_in, view.fan_in))
    after = answer(layer, kernel_with(kernel, view, left=p), x)
    inputs = CASES[name].inputs
    assert distance(after, answer(layer, kernel, multiplied(x, inputs, p))) < TOLERANCE
    transposed = multiplied(x, inputs, p.swapaxes(1, 2))
    assert distance(after, answer(layer, kernel, transposed)) > 1e4 * TOLERANCE


# Views that names and shapes suggest, for kernels whose extents cannot tell.
WRONG_VIEWS = {
    "Gemma as (d, n, h)": (CASES["Gemma"], MatrixView((5, 5, 4), (0,), (1, 2))),
    "transposed as (in, out)": (CASES["transposed"], MatrixView((5, 5), (0,), (1,))),
    "Conv1DTranspose as Conv1D": (
        Case(
            layers.Conv1DTranspose(4, 1),
            (2, 3, 4),
            LAST,
            Side((2, 3), (), (2, 3, 1, 4)),
        ),
        MatrixView((1, 4, 4), (0, 1), (2,)),
    ),
}


@pytest.mark.parametrize("name", WRONG_VIEWS)
def test_the_comparison_refuses_a_wrong_view(name, rng):
    """A view with the same extents but other axes fails by much; ours does not."""
    case, wrong = WRONG_VIEWS[name]
    layer, right, kernel, x = prepared(case, rng)
    q = rng.normal(size=(1, wrong.fan_out, wrong.fan_out))
    before = answer(layer, kernel, x)
    distances = []
    for view in (right, wrong):
        after = answer(layer, kernel_with(kernel, view, right=q), x)
        distances.append(distance(after, multiplied(before, case.outputs, q)))
    assert distances[0] < TOLERANCE
    assert distances[1] > 1e4 * TOLERANCE
