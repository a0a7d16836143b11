"""Kernels of layers as matrices, and back."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_muon.matrix_view import MatrixView

Tensor = Any


def to_matrices(x: Tensor, view: MatrixView) -> Tensor:
    """Return a kernel as (batch, in, out), or (in, out) if the batch is 1."""
    if view.is_matrix:
        return x
    x = _permuted(_reshaped(x, view.factors), view.permutation)
    shape = view.matrix_shape
    return _reshaped(x, shape[1:] if view.batch == 1 else shape)


def from_matrices(matrices: Tensor, view: MatrixView) -> Tensor:
    """Return the kernel that `to_matrices` took apart."""
    if view.is_matrix:
        return _reshaped(matrices, view.shape)
    x = _permuted(_reshaped(matrices, view.permuted_factors), view.inverse_permutation)
    return _reshaped(x, view.shape)


def stacked(matrices: Sequence[Tensor]) -> Tensor:
    """Return matrices (in, out), and stacks (batch, in, out) of them, as one stack."""
    if all(len(matrix.shape) == 2 for matrix in matrices):
        return _native("stack", ops.stack)(matrices)
    stacks = [m if len(m.shape) == 3 else ops.expand_dims(m, 0) for m in matrices]
    return ops.concatenate(stacks, axis=0)


def _permuted(x: Tensor, order: tuple[int, ...]) -> Tensor:
    in_order = all(axis == place for place, axis in enumerate(order))
    return x if in_order else _native("permute", ops.transpose)(x, order)


def _reshaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if tuple(x.shape) == shape else ops.reshape(x, shape)


def _native(name: str, function: Callable) -> Callable:
    """Return torch's own function where a step is not compiled but taken in Python.

    `keras.ops` first asks of each tensor whether it is symbolic, which shows where many
    are small: see `small` in `examples/benchmarks/RESULTS.md`.
    """
    if keras.backend.backend() != "torch":
        return function
    import torch

    return getattr(torch, name)
