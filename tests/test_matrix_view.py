"""MatrixView: fans, batch, permutations, factors, JSON, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import from_matrices, to_matrices

from keras_muon import MatrixView

# Kernels as Keras stores them: the arguments (shape, in, out, batch, factors) and
# (batch, fan_in, fan_out) counted by hand.
KERNELS = {
    "dense": (((64, 8), (0,), (1,)), (1, 64, 8)),
    "convolution": (((3, 5, 16, 32), (0, 1, 2), (3,)), (1, 240, 32)),
    "transposed_convolution": (((3, 5, 16, 32), (3,), (0, 1, 2)), (1, 32, 240)),
    "attention_query": (((64, 4, 16), (0,), (1, 2)), (1, 64, 64)),
    "attention_output": (((4, 16, 48), (0, 1), (2,)), (1, 64, 48)),
    "heads_apart": (((64, 4, 16), (0,), (2,), (1,)), (4, 64, 16)),
    "experts": (((6, 32, 8), (1,), (2,), (0,)), (6, 32, 8)),
    "grouped_convolution": (
        ((3, 3, 8, 12), (0, 1, 2), (4,), (3,), (3, 3, 8, 4, 3)),
        (4, 72, 3),
    ),
    # Models have axes of extent 1 too.
    "column": (((64, 1), (0,), (1,)), (1, 64, 1)),
    "row": (((1, 64), (0,), (1,)), (1, 1, 64)),
    "pointwise_convolution": (((1, 1, 16, 32), (0, 1, 2), (3,)), (1, 16, 32)),
    "window_3_by_1": (((3, 1, 16, 32), (0, 1, 2), (3,)), (1, 48, 32)),
    "single_head": (((64, 1, 16), (0,), (1, 2)), (1, 64, 16)),
    "pointwise_in_groups": (
        ((1, 1, 8, 12), (0, 1, 2), (4,), (3,), (1, 1, 8, 4, 3)),
        (4, 8, 3),
    ),
    "channels_in_groups_of_one": (
        ((3, 3, 1, 12), (0, 1, 2), (4,), (3,), (3, 3, 1, 12, 1)),
        (12, 9, 1),
    ),
}
ALL_KERNELS = pytest.mark.parametrize("name", KERNELS)


def kernel_of(view):
    """A kernel whose entries are all different."""
    return np.arange(np.prod(view.shape), dtype=float).reshape(view.shape)


def matrices_of(kernel, view):
    """What a view says about a kernel, by its permutation."""
    moved = kernel.reshape(view.factors).transpose(view.permutation)
    assert moved.shape == view.permuted_factors
    return moved.reshape(view.matrix_shape)


def axes_of(view):
    return view.batch_axes, view.in_axes, view.out_axes


@ALL_KERNELS
def test_fans_and_batch_are_those_counted_by_hand(name):
    """fan_in is what is summed over, fan_out what is produced, batch the rest."""
    arguments, counted = KERNELS[name]
    view = MatrixView(*arguments)
    assert (view.batch, view.fan_in, view.fan_out) == counted
    assert view.matrix_shape == counted
    assert view.shape == arguments[0]


@ALL_KERNELS
def test_permutation_brings_batch_in_and_out_together(name):
    """The matrices are those that index letters give, and the way back is exact."""
    view = MatrixView(*KERNELS[name][0])
    kernel = kernel_of(view)
    matrices = matrices_of(kernel, view)
    split = kernel.reshape(view.factors)
    np.testing.assert_array_equal(matrices, to_matrices(split, *axes_of(view)))
    back = matrices.reshape(view.permuted_factors).transpose(view.inverse_permutation)
    np.testing.assert_array_equal(back.reshape(view.shape), kernel)
    by_letters = from_matrices(matrices, view.factors, *axes_of(view))
    np.testing.assert_array_equal(back, by_letters)


@pytest.mark.parametrize("name", ["convolution", "attention_query", "attention_output"])
def test_the_matrix_does_what_the_layer_does(rng, name):
    """Contracting the kernel's in axes is a product with its matrix."""
    view = MatrixView(*KERNELS[name][0])
    kernel = rng.standard_normal(view.shape)
    x = rng.standard_normal([view.shape[axis] for axis in view.in_axes])
    axes = list(range(x.ndim))
    by_layer = np.tensordot(x, kernel, axes=(axes, list(view.in_axes)))
    by_matrix = x.reshape(1, -1) @ matrices_of(kernel, view)[0]
    # Largest error seen 4e-14; another order of axes is off by 10 or more.
    np.testing.assert_allclose(by_matrix.ravel(), by_layer.ravel(), atol=1e-11)


def test_factors_cut_a_grouped_convolution_into_its_groups():
    """Group number g owns the out channels from g * 3 on, as in the layer."""
    view = MatrixView(*KERNELS["grouped_convolution"][0])
    kernel = kernel_of(view)
    for group, matrix in enumerate(matrices_of(kernel, view)):
        own = kernel[..., group * 3 : (group + 1) * 3]
        np.testing.assert_array_equal(matrix, own.reshape(72, 3))


@st.composite
def views(draw):
    """Arguments of any view of up to five axes, each of extent 1 to 4."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)))
    axes = draw(st.permutations(range(len(shape))))
    first, second = sorted(draw(st.integers(0, len(shape))) for _ in range(2))
    return shape, axes[:first], axes[first:second], axes[second:]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(views())
def test_every_partition_of_the_axes_is_a_view(arguments):
    """No entry is lost or doubled, negative axes are the same axes, JSON keeps all."""
    view = MatrixView(*arguments)
    assert view.batch * view.fan_in * view.fan_out == np.prod(view.shape)
    order = [view.permutation[axis] for axis in view.inverse_permutation]
    assert order == list(range(len(view.shape)))
    shape, *axes = arguments
    counted_from_the_end = [[axis - len(shape) for axis in group] for group in axes]
    assert MatrixView(shape, *counted_from_the_end) == view
    assert MatrixView.from_json(json.loads(json.dumps(view.to_json()))) == view


@pytest.mark.parametrize(
    ("shape", "matrix_shape"),
    [((8, 4), (1, 8, 4)), ((3, 8, 4), (3, 8, 4)), ((2, 3, 8, 4), (6, 8, 4))],
    ids=str,
)
def test_of_last_axes(shape, matrix_shape):
    """The last two axes are in and out, however many come before."""
    view = MatrixView.of_last_axes(shape)
    assert view.matrix_shape == matrix_shape
    assert view.permutation == tuple(range(len(shape)))


@pytest.mark.parametrize("shape", [(), (8,)], ids=str)
def test_of_last_axes_needs_two(shape):
    """A vector is no matrix, and the message says where it belongs."""
    with pytest.raises(ValueError, match=r"at least 2 axes; received shape .*AdamW"):
        MatrixView.of_last_axes(shape)


@pytest.mark.parametrize(
    "axes",
    [
        ((0,), (0,)),
        ((0,), ()),
        ((0,), (2,)),
        ((0,), (-3,)),
        ((0, 1), (1,)),
        ((0,), (1,), (1,)),
        ((0,), (1, -1)),
    ],
    ids=str,
)
def test_axes_must_cover_each_axis_once(axes):
    """Axes that are missing, doubled or not there are refused with what was given."""
    with pytest.raises(ValueError, match=r"each of the 2 axes of .* exactly once"):
        MatrixView((8, 4), *axes)


@pytest.mark.parametrize("shape", [(), (0, 4), (8, -1)], ids=str)
def test_extents_must_be_positive(shape):
    """There is no view of nothing."""
    with pytest.raises(ValueError, match="`shape` must have at least one axis"):
        MatrixView(shape, (0,), (1,))


@pytest.mark.parametrize("axes", [0, "01", (0.0,), None, (None,)], ids=repr)
def test_axes_must_be_sequences_of_integers(axes):
    """A bare number is refused with the way to write it."""
    with pytest.raises(TypeError, match=r"`in_axes` must be a sequence .*written \(0,"):
        MatrixView((8, 4), axes, (1,))


@pytest.mark.parametrize(
    "factors",
    [(4, 6), (4, 2, 3), (2, 2, 6), (2, 2, 3, 2), (4, 1, 6), (1, 4, 6)],
    ids=str,
)
def test_factors_may_split_axes(factors):
    """Each axis of (4, 6) may be written as a product, in its place."""
    view = MatrixView((4, 6), range(len(factors) - 1), (-1,), factors=factors)
    assert view.fan_in * view.fan_out == 24


@pytest.mark.parametrize(
    "factors",
    [
        (24,),
        (6, 4),
        (2, 12),
        (8, 3),
        (4, 5),
        (4,),
        (4, 6, 2),
        (4, 0),
        (-4, -6),
        (-2, -2, 6),
    ],
    ids=str,
)
def test_factors_must_be_the_shape_with_axes_split(factors):
    """Factors that merge, exchange or lose axes would mix up the entries."""
    with pytest.raises(ValueError, match="`factors` must be `shape` with axes split"):
        MatrixView((4, 6), range(len(factors)), (), factors=factors)


def test_a_view_is_a_value():
    """Lists and NumPy integers make the same view, hashable and plain."""
    view = MatrixView((8, 4), (0,), (1,))
    same = MatrixView([np.int64(8), 4], np.array([0]), [-1], factors=[8, 4])
    assert same == view
    assert hash(same) == hash(view)
    assert all(type(extent) is int for extent in same.shape)
    assert MatrixView((8, 4), (1,), (0,)) != view
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.shape = (4, 8)
