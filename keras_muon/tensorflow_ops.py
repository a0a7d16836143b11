"""MatrixOps on TensorFlow, without the copies that it would make where XLA does not."""

from typing import Any

from keras_muon.keras_ops import LARGEST_UNIT, KerasOps, wide_dtype
from keras_muon.plan import Side

Tensor = Any


class TensorflowOps(KerasOps):
    """The same verbs where TensorFlow has an operation for a diagonal or an extreme."""

    def with_identity(self, a: float, x: Tensor) -> tuple[float, Tensor]:
        if not self._holds_identity(x):
            return a, x
        return 0.0, self._plus_identity(a, x)

    def applied(self, identity: float, total: Tensor, x: Tensor, side: Side) -> Tensor:
        import tensorflow as tf

        if wide_dtype(total) == self.dtype_of(total):
            return super().applied(identity, total, x, side)
        factor = self._plus_identity(identity, total)
        left, right = (factor, x) if side == "in" else (x, factor)
        return tf.matmul(left, right)

    def largest_entry(self, x: Tensor) -> Tensor:
        import tensorflow as tf

        # Without a copy of the absolute values.
        smallest = tf.reduce_min(x, axis=(-2, -1), keepdims=True)
        largest = tf.reduce_max(x, axis=(-2, -1), keepdims=True)
        largest = tf.maximum(largest, -smallest)
        return tf.stop_gradient(tf.minimum(largest, LARGEST_UNIT[self.dtype_of(x)]))

    def _plus_identity(self, a: float, x: Tensor) -> Tensor:
        """Return a I + X, of which the diagonal is added in float32 or better."""
        import tensorflow as tf

        diagonal = self.cast(tf.linalg.diag_part(x), wide_dtype(x)) + a
        return tf.linalg.set_diag(x, self.cast(diagonal, self.dtype_of(x)))
