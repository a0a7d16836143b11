"""One bucket of hidden matrices: what each step asks about it, found out once."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_muon.batching import one_orientation
from keras_muon.matrix_view import MatrixView
from keras_muon.plan import Plan
from keras_muon.scaling import Scaling

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Kernels whose matrices share an iteration.

    Args:
        views: The matrix view of each kernel.
        plan: How their polar factors are computed.

    Attributes:
        turned: The views in one orientation, see `batching.one_orientation`.

    Example:
        >>> from keras_muon.plan_choice import plan_for
        >>> from keras_muon.schedules import SCHEDULES
        >>> plan = plan_for(8, 4, SCHEDULES["you"], "float32")
        >>> kernels = MatrixView.of_last_axes((8, 4)), MatrixView.of_last_axes((4, 8))
        >>> bucket = Bucket(kernels, plan)
        >>> [view.matrix_shape for view in bucket.turned]
        [(1, 8, 4), (1, 8, 4)]
        >>> bucket.step_factors(lambda fan_in, fan_out: fan_out / fan_in)
        [0.5, 2.0]
    """

    views: Sequence[MatrixView]
    plan: Plan
    turned: Sequence[MatrixView] = dataclasses.field(init=False)
    _fans: Sequence[tuple[int, int]] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        # No cached properties: before Python 3.12 they lock, which torch.compile
        # cannot trace.
        object.__setattr__(self, "turned", one_orientation(self.views))
        fans = [(view.fan_in, view.fan_out) for view in self.views]
        object.__setattr__(self, "_fans", fans)

    def step_factors(self, scale: Scaling) -> list[float]:
        """Return the step factor of each kernel.

        Args:
            scale: From fan_in and fan_out to the factor.
        """
        factors = {pair: scale(*pair) for pair in set(self._fans)}
        return [factors[pair] for pair in self._fans]

    def scales(self, rate: Tensor, scale: Scaling) -> Tensor:
        """Return what the stack is multiplied by: one number, or one per matrix.

        Args:
            rate: The learning rate.
            scale: From fan_in and fan_out to the step factor.
        """
        factors = self.step_factors(scale)
        if len(set(factors)) == 1:
            return rate * factors[0]
        each = np.repeat(factors, [view.batch for view in self.views])
        return rate * keras.ops.convert_to_tensor(each.reshape(-1, 1, 1), rate.dtype)
