"""MatrixOps on torch, by its fused kernels and without needless copies."""

from typing import Any

from keras_muon.keras_ops import LARGEST_UNIT, KerasOps, wide_dtype
from keras_muon.matrix_ops import DerivedVerbs, Turned
from keras_muon.panels import torch_panels
from keras_muon.plan import Side
from keras_muon.plan_choice import SMALLEST_PANELLED

Tensor = Any

# Norms of which float32 has the square, and that of an entry a millionth as large.
SMALLEST_PLAIN, LARGEST_PLAIN = 1e-12, 1e18

# Of a Gram matrix whose values are 1 at most. Named schedules need 2.8 or less; where c
# is small beside b, the shift would take the digits of the matrix.
LARGEST_SHIFT = 4.0


class TorchOps(KerasOps):
    """The same verbs where torch has one kernel for alpha * C + beta * A @ B.

    Args:
        panels: Number of column panels of a symmetric product; small ones are whole.
        overwrites: Whether to write where `MatrixOps` allows it, into the matrices that
            are given, too. Memory that is new at every step costs a tenth of it: the
            system clears each page.
    """

    def __init__(self, panels: int = 1, *, overwrites: bool = False):
        super().__init__()
        self.panels = panels
        self.overwrites = overwrites

    def gram(self, x: Tensor, side: Side) -> Tensor:
        left, right = (x, x.mT) if side == "in" else (x.mT, x)
        return torch_panels(left, right, self._panels_of(left))

    def squared(self, x: Tensor) -> Tensor:
        return torch_panels(x, x, self._panels_of(x))

    def product(self, a: Tensor, b: Tensor, turned: Turned) -> Tensor:
        return a.mT @ b if turned == "left" else a @ b.mT

    def combined(self, alpha: float, x: Tensor, beta: float, y: Tensor) -> Tensor:
        if alpha == 1.0:
            return x.add(y, alpha=beta)
        # Into what is new anyhow: another new matrix takes as long as both operations.
        return (x * alpha).add_(y, alpha=beta)

    def scaled(self, alpha: float, x: Tensor) -> Tensor:
        # `keras.ops.multiply` would round alpha to float32 on torch.
        return x if alpha == 1.0 else x * alpha

    def on_grid(self, x: Tensor, bits: int) -> Tensor:
        return (x * 2.0**bits).round_().mul_(2.0**-bits)

    def divided(self, x: Tensor, y: Tensor, dtype: str) -> Tensor:
        import torch

        narrow = getattr(torch, dtype)
        if x.dtype == narrow and self._may_overwrite(x, y):
            return x.div_(y.to(x.dtype))
        if x.dtype == narrow or _recorded(x, y):
            return (x / y.to(x.dtype)).to(narrow)
        # In one pass: a second copy in the wide dtype costs more than the division.
        out = torch.empty_like(x, dtype=narrow)
        return torch.mul(x, y.reciprocal().to(x.dtype), out=out)

    def added(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        y = y.to(z.dtype)
        return x.addcmul_(y, z) if self._may_overwrite(x, y, z) else x.addcmul(y, z)

    def at_least(self, y: Tensor, least: float) -> Tensor:
        # `keras.ops.maximum` with a number would round float64 to float32 on torch.
        return y.clamp(min=least)

    def rest_of_one(self, y: Tensor, at_least: float) -> Tensor:
        return (1.0 - y.square()).clamp(min=at_least**2).sqrt()

    def largest_entry(self, x: Tensor) -> Tensor:
        # Without a copy of the absolute values.
        x = x.detach()
        smallest = x.amin(dim=(-2, -1), keepdim=True)
        largest = x.amax(dim=(-2, -1), keepdim=True).maximum(-smallest)
        return largest.clamp_(max=LARGEST_UNIT[self.dtype_of(x)])

    def frobenius_norm(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or _recorded(x):
            return super().frobenius_norm(x)
        import torch

        # Without a matrix of squares.
        wide = getattr(torch, wide_dtype(x))
        rows = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        return torch.linalg.vector_norm(rows, dim=-2, keepdim=True)

    def plain_norm(self, x: Tensor) -> Tensor | None:
        import torch

        # On an accelerator, looking at a value waits for all that was asked before.
        hidden = x.device.type != "cpu" or torch.compiler.is_compiling()
        # In a stack, the last bits of a matrix would depend on the others.
        if hidden or x.ndim > 2 or not self._may_overwrite(x):
            return None
        norm = self.frobenius_norm(x)
        return norm if SMALLEST_PLAIN < float(norm) < LARGEST_PLAIN else None

    def fused(
        self, alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor
    ) -> Tensor:
        if c.ndim == 2 and self._may_overwrite(c, a, b):
            return c.addmm_(a, b, beta=alpha, alpha=beta)
        return _added(alpha, c, beta, a, b)

    def step_factor(
        self, a: float, b: float, c: float, gram: Tensor
    ) -> tuple[float, Tensor]:
        near = abs(b) <= LARGEST_SHIFT * abs(2.0 * c)
        if not c or not near or not self._holds_identity(gram):
            return DerivedVerbs.step_factor(self, a, b, c, gram)
        # a I + b R + c R R = c (R + s I)^2 + (a - c s^2) I for s = b / 2c.
        shift = b / (2.0 * c)
        diagonal = gram.diagonal()
        kept = diagonal.clone()
        diagonal.add_(shift)
        square = torch_panels(gram, gram, self.panels, beta=c)
        diagonal.copy_(kept)
        return self.with_identity(a - c * shift**2, square)

    def with_identity(self, a: float, x: Tensor) -> tuple[float, Tensor]:
        if not self._holds_identity(x):
            return a, x
        x.diagonal().add_(a)
        return 0.0, x

    def _holds_identity(self, x: Tensor) -> bool:
        """Whether factors of a step hold their identity, and nothing is added.

        A panel of what is added would be copied first. In a narrow dtype an identity
        several times as large as the result takes its digits; in float32 its rounding
        shows only where a matrix lacks nearly all directions.
        """
        return self._panels_of(x) > 1 and x.itemsize > 2 and not _recorded(x)

    def applied(self, identity: float, total: Tensor, x: Tensor, side: Side) -> Tensor:
        left, right = (total, x) if side == "in" else (x, total)
        if not identity:
            return left @ right
        return _added(identity, x, 1.0, left, right)

    def symmetric(
        self, alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor
    ) -> Tensor:
        panels = self._panels_of(a)
        if not alpha:
            return torch_panels(a, b, panels, beta=beta, commuting=True)
        if panels == 1:
            return _added(alpha, c, beta, a, b)
        return torch_panels(a, b, panels, alpha, c, beta, commuting=True)

    def _may_overwrite(self, x: Tensor, *others: Tensor) -> bool:
        return self.overwrites and not _recorded(x, *others)

    def _panels_of(self, a: Tensor) -> int:
        return self.panels if a.shape[-2] >= SMALLEST_PANELLED else 1


def _added(alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor) -> Tensor:
    added = c.addmm if c.ndim == 2 else c.baddbmm
    return added(a, b, beta=alpha, alpha=beta)


def _recorded(*tensors: Tensor) -> bool:
    """Whether torch records gradients of these, which forbids writing in place."""
    import torch

    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
