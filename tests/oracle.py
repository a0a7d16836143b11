"""Independent answers in float64 NumPy. This file imports nothing of keras_muon.

Newton-Schulz is a scalar polynomial on the singular values, so the oracle never
multiplies a matrix by itself: it takes the SVD, maps the values, and puts the matrix
together again.
"""

import numpy as np


def polar_by_svd(matrices, triples, schatten=2):
    """U p(S / |S|) V^T for (..., in, out), p the composition of odd quintics.

    |S| is the 2-norm of the singular values, or the one of another even `schatten`.
    """
    matrices = np.asarray(matrices, np.float64)
    u, s, vt = np.linalg.svd(matrices, full_matrices=False)
    # In units of the largest, whose powers fit.
    largest = s.max(axis=-1, keepdims=True, initial=1e-300)
    norm = largest * ((s / largest) ** schatten).sum(-1, keepdims=True) ** (
        1 / schatten
    )
    s = np.divide(s, norm, out=np.zeros_like(s), where=norm > 0)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return (u * s[..., None, :]) @ vt


def random_signs(count):
    """Bit 16 of the linear congruential generator of ISO C's example, as -1 and 1.

    In closed form instead of step by step: after k steps its state is
    a^k + 12345 (a^k - 1) / (a - 1), all modulo 2^31.
    """
    a, modulus = 1103515245, 2**31
    signs = []
    for k in range(1, count + 1):
        power = pow(a, k, modulus * (a - 1))
        state = (power + 12345 * ((power - 1) // (a - 1))) % modulus
        signs.append(2.0 * (state // 2**16 % 2) - 1.0)
    return np.array(signs)


def compressing(x, basis_triples, value_triples, smallest_rest):
    """A wide matrix of norm 1 with its leading singular values compressed.

    The mixtures are one product with a dense matrix of one to three signed sums of
    every 16 rows; polar factors are those of `polar_by_svd`.
    """
    rows = len(x)
    count = 3 - (rows >= 512) - (rows >= 768)
    mixing = np.zeros((rows // 16, count, rows))
    for group, signs in enumerate(random_signs(count * rows).reshape(-1, count, 16)):
        mixing[group, :, 16 * group : 16 * group + 16] = signs
    basis = polar_by_svd(x @ (mixing.reshape(-1, rows) @ x).T, basis_triples)
    inside = basis.T @ x
    others = rows - count * rows // 16
    left = max(1.0 - (inside**2).sum(), smallest_rest**2 * others)
    equal = polar_by_svd(inside, value_triples) * np.sqrt(left / others)
    return x + basis @ (equal - inside)


def polar_after_compression(x, triples, basis_triples, value_triples, smallest_rest):
    """The approximate polar factor of large matrices (..., in, out), zero for zero."""
    x = np.asarray(x, np.float64)
    if x.ndim > 2:
        others = (triples, basis_triples, value_triples, smallest_rest)
        return np.stack([polar_after_compression(part, *others) for part in x])
    norm = np.linalg.norm(x)
    x = x / (norm or 1.0)
    tall = x.shape[0] > x.shape[1]
    wide = x.T if tall else x
    even = compressing(wide, basis_triples, value_triples, smallest_rest)
    result = polar_by_svd(even, triples, schatten=8)
    return result.T if tall else result


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
