"""Symmetric products in column panels: what lies above the diagonal is mirrored.

Of a product that is known to be symmetric, a panel of columns is computed from the
diagonal downwards. With p panels that is (p + 1) / 2p of the operations. On XLA, which
cannot write panels where they belong, this gains 2 % and takes twice the compile time;
there products stay whole.

Rounding keeps factors from commuting, and a product of two matrices from symmetry. What
is mirrored and what is not, inside of a panel, would then differ, and the next product
amplifies the difference: in bfloat16 three steps on one Gram matrix turned a matrix of
rank 1 into an error of 2. So blocks on the diagonal become the mean of themselves and
their mirror image. A matrix times itself needs none of it: only the order of sums can
differ there, and sums are of float32.
"""

from typing import Any

from keras_muon.products import panel_edges

Tensor = Any


def torch_panels(
    a: Tensor,
    b: Tensor,
    panels: int,
    alpha: float = 0.0,
    c: Tensor | None = None,
    beta: float = 1.0,
    *,
    commuting: bool = False,
) -> Tensor:
    """Return alpha * C + beta * A @ B, both terms symmetric, on torch.

    Each panel is written where it belongs. Where gradients are recorded, which does not
    allow that, the product is computed whole.

    Args:
        a: Matrix of shape (m, k), or a stack.
        b: Matrix of shape (k, m).
        panels: Number of panels.
        alpha: Factor of C.
        c: Symmetric matrix of shape (m, m), or None for zero.
        beta: Factor of the product.
        commuting: Whether the product is symmetric because A and B commute, and not
            because B is the transposed A. Then both are symmetric themselves.

    Returns:
        Matrix of shape (m, m).
    """
    import torch

    recorded = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
    if panels == 1 or recorded:
        if c is None:
            return a @ b if beta == 1.0 else (a @ b) * beta
        return c.addmm(a, b, beta=alpha, alpha=beta)
    result = a.new_empty(a.shape[0], b.shape[1])
    for start, end in panel_edges(a.shape[0], panels):
        target, left, right = result[start:, start:end], a[start:], b[:, start:end]
        added = target if c is None else c[start:, start:end]
        torch.addmm(added, left, right, beta=alpha, alpha=beta, out=target)
        result[start:end, end:] = result[end:, start:end].mT
        if commuting and a is not b:
            block = result[start:end, start:end]
            mirrored = block.mT.clone(memory_format=torch.contiguous_format)
            block.lerp_(mirrored, 0.5)
    return result
