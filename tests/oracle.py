"""Independent answers in float64 NumPy. This file imports nothing of keras_muon.

Newton-Schulz is a scalar polynomial on the singular values, so the oracle never
multiplies a matrix by itself: it takes the SVD, maps the values, and puts the matrix
together again.
"""

import numpy as np


def polar_by_svd(matrices, triples):
    """U p(S / |S|) V^T for (..., in, out), p the composition of odd quintics."""
    matrices = np.asarray(matrices, np.float64)
    u, s, vt = np.linalg.svd(matrices, full_matrices=False)
    norm = np.sqrt((s**2).sum(axis=-1, keepdims=True))
    s = np.divide(s, norm, out=np.zeros_like(s), where=norm > 0)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return (u * s[..., None, :]) @ vt


def to_matrices(kernel, batch_axes, in_axes, out_axes):
    """(batch, in, out) of a kernel, by index letters instead of by permutation."""
    order = (*batch_axes, *in_axes, *out_axes)
    letters = "abcdefgh"[: kernel.ndim]
    target = "".join(letters[axis] for axis in order)
    moved = np.einsum(f"{letters}->{target}", kernel)
    sizes = [
        int(np.prod([kernel.shape[a] for a in axes], dtype=int))
        for axes in (batch_axes, in_axes, out_axes)
    ]
    return moved.reshape(sizes)


def from_matrices(matrices, shape, batch_axes, in_axes, out_axes):
    """The kernel whose `to_matrices` is `matrices`."""
    order = (*batch_axes, *in_axes, *out_axes)
    letters = "abcdefgh"[: len(shape)]
    source = "".join(letters[axis] for axis in order)
    moved = matrices.reshape([shape[axis] for axis in order])
    return np.einsum(f"{source}->{letters}", moved)
