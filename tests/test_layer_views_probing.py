"""Views against the layers themselves: what one entry of a kernel reads and writes.

The input is numbered 1, 2, 3, ... and all of the kernel is zero but one entry, which
is 1. Every output is then zero or one of the numbers, so the output says which inputs
the entry reads and which outputs it writes. No equation is looked at. Along an axis

* that is summed over, only what is read changes: in;
* that is produced, only what is written changes: out;
* that numbers independent maps, both change: batch.
"""

import itertools

import keras
import numpy as np
import pytest

from keras_muon import MatrixView
from keras_muon.layer_views import einsum_view, role_of

layers = keras.layers

pytestmark = pytest.mark.filterwarnings(
    # Keras on torch, under NumPy 2, in convert_to_numpy.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

# Name: equation, output shape without its first axis, input shape.
EQUATIONS = {
    "dense": ("abc,cd->abd", (2, 4), (2, 2, 3)),
    "query": ("abc,cde->abde", (2, 3, 4), (2, 2, 5)),
    "attention output": ("abcd,cde->abe", (2, 5), (2, 2, 3, 4)),
    "Gemma": ("btd,ndh->btnh", (2, 3, 4), (2, 2, 5)),
    "Gemma output": ("btnh,nhd->btd", (2, 5), (2, 2, 3, 4)),
    "experts": ("ebd,edf->ebf", (2, 5), (3, 2, 4)),
    "transposed": ("abc,dc->abd", (2, 4), (2, 2, 3)),
    "ellipsis left": ("...x,xy->...y", (2, 4), (2, 2, 3)),
    "ellipsis, two axes in": ("...xy,xyz->...z", (2, 5), (2, 2, 3, 4)),
    "ellipsis right": ("ab...,bc->ac...", (4, 2), (2, 3, 2)),
    "per position": ("abc,bcd->abd", (3, 5), (2, 3, 4)),
    "per head": ("bnd,ndh->bnh", (3, 5), (2, 3, 4)),
    "experts with heads": ("ebd,nedh->ebnh", (2, 2, 5), (3, 2, 4)),
    "out axes apart": ("abc,dce->aebd", (4, 2, 3), (2, 2, 5)),
}

# Name: layer, input shape, axes of the kernel (batch, in, out).
CONVOLUTIONS = {
    "Conv1D": (layers.Conv1D(3, 3), (2, 6, 2), ((), (0, 1), (2,))),
    "Conv1D strided": (
        layers.Conv1D(3, 3, strides=2),
        (2, 9, 2),
        ((), (0, 1), (2,)),
    ),
    "Conv2D dilated": (
        layers.Conv2D(3, 2, dilation_rate=2),
        (2, 5, 6, 2),
        ((), (0, 1, 2), (3,)),
    ),
    "Conv2D strided": (
        layers.Conv2D(3, (3, 2), strides=(2, 1)),
        (2, 7, 4, 2),
        ((), (0, 1, 2), (3,)),
    ),
    "Conv3D": (layers.Conv3D(2, 2), (1, 3, 3, 4, 2), ((), (0, 1, 2, 3), (4,))),
    "Conv1D of 2 groups": (
        layers.Conv1D(6, 2, groups=2),
        (2, 4, 4),
        ((2,), (0, 1), (3,)),
    ),
    "Conv2D of 3 groups": (
        layers.Conv2D(6, 2, groups=3),
        (1, 3, 3, 6),
        ((3,), (0, 1, 2), (4,)),
    ),
    "Conv2D with a group per channel": (
        layers.Conv2D(6, 2, groups=3),
        (1, 3, 3, 3),
        ((3,), (0, 1, 2), (4,)),
    ),
    "Conv1DTranspose": (
        layers.Conv1DTranspose(3, 3),
        (2, 4, 2),
        ((), (2,), (0, 1)),
    ),
    "Conv2DTranspose strided": (
        layers.Conv2DTranspose(3, 3, strides=2),
        (1, 3, 3, 2),
        ((), (3,), (0, 1, 2)),
    ),
    "Conv2DTranspose dilated": (
        layers.Conv2DTranspose(3, 2, dilation_rate=2),
        (1, 3, 3, 2),
        ((), (3,), (0, 1, 2)),
    ),
    "Conv3DTranspose": (
        layers.Conv3DTranspose(2, 2),
        (1, 2, 3, 2, 2),
        ((), (4,), (0, 1, 2, 3)),
    ),
}


def probed_axes(layer, kernel, input_shape, factors):
    """(batch, in, out) axes of a kernel, learned from the layer's answers alone.

    An axis of extent 1 has no other entry to compare with, and is left out.
    """
    numbers = np.arange(1, np.prod(input_shape) + 1, dtype="float32")
    numbered = keras.ops.convert_to_tensor(numbers.reshape(input_shape))
    reads, writes = {}, {}
    for index in np.ndindex(*factors):
        probe = np.zeros(factors, "float32")
        probe[index] = 1.0
        kernel.assign(probe.reshape(kernel.shape))
        answer = keras.ops.convert_to_numpy(layer(numbered))
        reads[index] = frozenset(answer[answer != 0].tolist())
        writes[index] = frozenset(np.flatnonzero(answer).tolist())
        assert reads[index] <= set(numbers.tolist()), (
            "an entry must read and not combine"
        )
    kinds = {(True, True): [], (True, False): [], (False, True): []}
    for axis, extent in enumerate(factors):
        others = [range(n) for a, n in enumerate(factors) if a != axis]
        changes = set()
        for rest in itertools.product(*others):
            line = [(*rest[:axis], i, *rest[axis:]) for i in range(extent)]
            for first, second in itertools.combinations(line, 2):
                read = reads[first] != reads[second]
                changes.add((read, writes[first] != writes[second]))
        assert len(changes) == (extent > 1), f"axis {axis} has more than one role"
        for change in changes:
            kinds[change].append(axis)
    return tuple(tuple(axes) for axes in kinds.values())


def axes_of(view):
    return (view.batch_axes, view.in_axes, view.out_axes)


def built(layer, input_shape):
    layer.kernel_initializer = keras.initializers.Zeros()
    layer.build(input_shape)
    return layer


@pytest.mark.parametrize("name", EQUATIONS)
def test_einsum_views_are_what_the_layer_does(name):
    """The letters of an equation lead to the axes that probing finds."""
    equation, output_shape, input_shape = EQUATIONS[name]
    layer = built(layers.EinsumDense(equation, output_shape), input_shape)
    view = role_of(layer, layer.kernel).view
    found = probed_axes(layer, layer.kernel, input_shape, layer.kernel.shape)
    assert axes_of(view) == found


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_views_are_what_the_layer_does(name):
    """Strides, dilation, groups and transposition lead to the probed axes."""
    layer, input_shape, expected = CONVOLUTIONS[name]
    layer = built(layer, input_shape)
    view = role_of(layer, layer.kernel).view
    assert axes_of(view) == expected
    found = probed_axes(layer, layer.kernel, input_shape, view.factors)
    long = [axis for axis, extent in enumerate(view.factors) if extent > 1]
    assert found == tuple(tuple(a for a in axes if a in long) for axes in expected)


def test_depthwise_kernels_have_one_filter_per_channel():
    """A depthwise kernel is a batch over channels, which is why AdamW has it."""
    layer = layers.DepthwiseConv1D(3, depth_multiplier=2, depthwise_initializer="zeros")
    layer.build((2, 5, 4))
    axes = probed_axes(layer, layer.kernel, (2, 5, 4), tuple(layer.kernel.shape))
    assert axes == ((1,), (0,), (2,))
    assert role_of(layer, layer.kernel).reason == "one filter per channel"


def test_dense_is_in_then_out():
    """Dense stores (in, out)."""
    layer = built(layers.Dense(4), (2, 3))
    axes = probed_axes(layer, layer.kernel, (2, 3), (3, 4))
    assert axes_of(role_of(layer, layer.kernel).view) == axes == ((), (0,), (1,))


@pytest.mark.parametrize(
    "equation", ["abc,bc->abc", "ab,cd->abcd", "abc,bcd->ab"], ids=lambda text: text
)
def test_equations_without_a_matrix(equation):
    """Elementwise, outer and total products have no in or no out: not decided."""
    extents = dict(zip("abcd", (2, 3, 4, 5), strict=True))
    shape = tuple(extents[letter] for letter in equation.split(",")[1].split("->")[0])
    assert einsum_view(equation, shape) is None


def test_an_equation_without_a_matrix_is_reported_not_guessed():
    """The role of such a kernel is open, and its reason shows the equation."""
    layer = built(layers.EinsumDense("abc,bc->abc", (3, 4)), (2, 3, 4))
    role = role_of(layer, layer.kernel)
    assert (role.view, role.certain) == (None, False)
    assert role.reason == "no matrix in abc,bc->abc"


def test_an_equation_of_another_rank_has_no_view():
    """A kernel that does not fit its equation is not read by position."""
    assert einsum_view("abc,cd->abd", (3, 4, 5)) is None


def test_spaces_in_an_equation_do_not_matter():
    """Keras accepts them, and so does the view."""
    view = einsum_view("btd, ndh -> btnh", (3, 5, 4))
    assert view == MatrixView((3, 5, 4), (1,), (0, 2))
