"""Momenta of one bucket as one tensor, on torch.

Where each operation is a call, one that goes over all matrices of a bucket has all
cores and is called once; on a list of tensors it is called for each, on one core.
Gradients are stacked anyway, for Newton-Schulz. With momenta in such a stack, too, two
operations advance all of them.

Every variable keeps its value, in its own shape: a part of the stack, which is not
contiguous if its matrix is turned, and whose memory is that of the whole. What is
loaded into it or read from it is there.
"""

from collections.abc import Sequence
from typing import Any, Self

from keras_muon.matrix_view import MatrixView
from keras_muon.muon_direction import kernels_of, stack_of

Tensor = Any
Variable = Any


class StackedMomenta:
    """A stack whose parts are the values of variables; see `of`."""

    def __init__(
        self,
        stack: Tensor,
        views: Sequence[MatrixView],
        values: Sequence[Tensor],
    ):
        self.stack, self.views = stack, views
        self._values, self._places = values, _places(values)

    @classmethod
    def of(cls, states: Sequence[Variable], views: Sequence[MatrixView]) -> Self | None:
        """Move values into a stack, of which they are parts from then on.

        Args:
            states: Two or more variables of one dtype and device.
            views: Their matrix views, all with the same fan_in and fan_out.

        Returns:
            None, and nothing has changed, if one of them cannot be a part of a stack
            without a copy, as the kernel of a grouped convolution.
        """
        values = [state.value for state in states]
        stack = stack_of(values, views)
        parts = kernels_of(stack, views)
        memory = stack.untyped_storage().data_ptr()
        if any(part.untyped_storage().data_ptr() != memory for part in parts):
            return None
        for value, part in zip(values, parts, strict=True):
            value.set_(part)
        return cls(stack, views, values)

    def holds(self) -> bool:
        """Whether the values are still parts of the stack, and nobody moved one.

        Another tensor as the value of a variable is not seen; Keras has no public way
        to give it one.
        """
        return _places(self._values) == self._places

    def advanced(
        self, gradients: Sequence[Tensor], *, momentum: float, nesterov: bool
    ) -> Tensor:
        """Take a step of momentum in place, see `momentum.nesterov_update`.

        Args:
            gradients: The gradient of each kernel, which is left alone.
            momentum: The momentum's decay.
            nesterov: Whether to look one step ahead.

        Returns:
            The updates as a new stack.
        """
        import torch

        updates = stack_of(gradients, self.views)
        torch.add(updates, self.stack, alpha=momentum, out=self.stack)
        if not nesterov:
            return updates.copy_(self.stack)
        return updates.add_(self.stack, alpha=momentum)


def _places(values: Sequence[Tensor]) -> list[int]:
    return [value.data_ptr() for value in values]
