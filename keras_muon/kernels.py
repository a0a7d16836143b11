"""Kernels of layers as matrices, and back."""

from typing import Any

from keras import ops

from keras_muon.matrix_view import MatrixView

Tensor = Any


def to_matrices(x: Tensor, view: MatrixView) -> Tensor:
    """Return a kernel as (batch, in, out), or (in, out) if the batch is 1."""
    x = _reshaped(x, view.factors)
    if view.permutation != tuple(range(len(view.factors))):
        x = ops.transpose(x, view.permutation)
    shape = view.matrix_shape
    return _reshaped(x, shape[1:] if view.batch == 1 else shape)


def from_matrices(matrices: Tensor, view: MatrixView) -> Tensor:
    """Return the kernel that `to_matrices` took apart."""
    x = _reshaped(matrices, view.permuted_factors)
    if view.permutation != tuple(range(len(view.factors))):
        x = ops.transpose(x, view.inverse_permutation)
    return _reshaped(x, view.shape)


def _reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if tuple(x.shape) == shape else ops.reshape(x, shape)
