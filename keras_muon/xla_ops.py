"""MatrixOps for XLA on a CPU: stacks of small matrices, side by side in a step."""

import itertools
from typing import Any

from keras import ops

from keras_muon.keras_ops import KerasOps
from keras_muon.opaque_values import opaque
from keras_muon.plan import Plan
from keras_muon.plan_choice import is_small

Tensor = Any

# XLA multiplies a stack of matrices of fewer than 192 rows on one thread, and hands
# what else is ready to another only where an operation runs apart. A product does whose
# left side is turned: Eigen computes it instead of YNNPACK, in twice the time. One in
# each step pays from 128 rows on where a thread is idle: 32 of 128 x 128 take 0.88 of
# the time and 24 of 160 x 160 take 0.96, but 32 of 96 x 96 take 1.1. Where the threads
# have other work it costs up to 1.3.
# Source: xla/backends/cpu/runtime/thunk_executor.cc and dot_thunk.cc of OpenXLA.
TURNED_ROWS = range(128, 192)


class XlaOps(KerasOps):
    """The same verbs with hidden factors, and with work for a second thread.

    XLA compiles `b A + c A A` again for each b and c. With unknown ones all steps on a
    shape share it, and the first call of a step is shorter: see `small` in
    `examples/benchmarks/RESULTS.md`. In stacks the factors of a step hold their
    identity, and one of its products runs apart. Split products, which keep digits, are
    left as they are.

    Args:
        plan: What will be computed, one that it `suits`.
    """

    def __init__(self, plan: Plan):
        super().__init__(whole_factors=not plan.split)
        self._values = _hidden_values(plan)

    @staticmethod
    def suits(plan: Plan) -> bool:
        """Whether matrices are small: kernels are what their plan costs to compile.

        On large ones operations of all sizes surround their steps.
        """
        return is_small(plan.fan_in, plan.fan_out)

    def symmetric(
        self, alpha: float, c: Tensor, beta: float, a: Tensor, b: Tensor
    ) -> Tensor:
        if a is b and a.shape[-1] in TURNED_ROWS and self._holds_identity(a):
            a = ops.swapaxes(a, -1, -2)
        return self.fused(alpha, c, beta, a, b)

    def scaled(self, alpha: float, x: Tensor) -> Tensor:
        value = self._values.get(alpha)
        if value is None:
            return super().scaled(alpha, x)
        return ops.multiply(x, ops.cast(value, x.dtype))

    def _holds_identity(self, x: Tensor) -> bool:
        # A matrix alone is better off with the longer sums, which run apart as well. So
        # is one of a stack that `jax.vmap` hides.
        stack = any(extent != 1 for extent in x.shape[:-2])
        return stack and super()._holds_identity(x)


def _hidden_values(plan: Plan) -> dict[float, Tensor]:
    steps = set(itertools.chain.from_iterable(plan.segments))
    if len(steps) == 1:  # As those of `jordan`, which share their kernels anyway.
        return {}
    numbers = sorted(set(itertools.chain.from_iterable(steps)))
    wide = "float64" if plan.compute_dtype == "float64" else "float32"
    return dict(zip(numbers, opaque(numbers, wide), strict=True))
