"""The matrix products of a Newton-Schulz step, alone: the peak that a step may reach.

Every matrix X of a model is multiplied as X X^T, A A and A X on its short side, in the
framework and dtype of the contenders, matrix by matrix and as stacks of equal shapes.
The faster of the two is the peak.
"""

from collections.abc import Callable, Sequence

import numpy as np
from carriers import Carrier
from step_flops import newton_schulz_flops

# One step with all three products.
ONE_STEP = ((1.0, 1.0, 1.0),)
FORMS = ("one by one", "stacked")


def product_flops(gradients: Sequence[np.ndarray]) -> int:
    """Return the operations of the products of all matrices."""
    return newton_schulz_flops([g.shape for g in gradients], ONE_STEP)


def products(
    gradients: Sequence[np.ndarray], dtype: str, form: str, carrier: Carrier
) -> Callable[[], None]:
    """Return a function that multiplies all matrices and waits.

    Args:
        gradients: The matrices.
        dtype: Of the products.
        form: One of `FORMS`.
        carrier: Of the backend.
    """
    from keras import ops

    wide = [g if g.shape[0] <= g.shape[1] else g.T for g in gradients]
    groups = {g.shape: [h for h in wide if h.shape == g.shape] for g in wide}
    arrays = wide if form == "one by one" else [np.stack(g) for g in groups.values()]
    tensors = [ops.convert_to_tensor(array, dtype) for array in arrays]

    def multiply(matrices):
        results = []
        for x in matrices:
            gram = ops.matmul(x, ops.swapaxes(x, -1, -2))
            results += [gram, ops.matmul(gram, gram), ops.matmul(gram, x)]
        return results

    function = carrier.compiled(multiply)
    return lambda: carrier.wait(function(tensors))
