"""MatrixOps for XLA on a CPU, with factors whose values it does not know."""

import itertools
from typing import Any

from keras import ops

from keras_muon.keras_ops import KerasOps
from keras_muon.opaque_values import opaque
from keras_muon.plan import Plan

Tensor = Any


class XlaOps(KerasOps):
    """The same verbs where every known factor costs a kernel.

    XLA compiles `b A + c A A` again for each b and c. With unknown ones all steps on a
    shape share it, and the first call of a step is shorter: see `small` in
    `examples/benchmarks/RESULTS.md`. Split products have known ones of their own.

    Args:
        plan: What will be computed, one that `pays`.
    """

    def __init__(self, plan: Plan):
        super().__init__()
        steps = itertools.chain.from_iterable(plan.segments)
        numbers = sorted(set(itertools.chain.from_iterable(steps)))
        wide = "float64" if plan.compute_dtype == "float64" else "float32"
        self._values = dict(zip(numbers, opaque(numbers, wide), strict=True))

    @staticmethod
    def pays(plan: Plan) -> bool:
        """Whether kernels are what a plan costs to compile.

        Not where its steps are equal, as those of `jordan`. On large matrices nothing
        is gained: operations of all sizes surround their steps.
        """
        triples = set(itertools.chain.from_iterable(plan.segments))
        return len(triples) > 1 and plan.leading is None and plan.loop == "none"

    def scaled(self, alpha: float, x: Tensor) -> Tensor:
        value = self._values.get(alpha)
        if value is None:
            return super().scaled(alpha, x)
        return ops.multiply(x, ops.cast(value, x.dtype))
