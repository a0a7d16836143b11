"""In which steps products are split so that float32 keeps its digits."""

import itertools
import math

from keras_muon.plan import Segments
from keras_muon.schedules import Schedule

# The rounding of a product reaches directions that a matrix lacks, and there the slopes
# of this step and of all later ones multiply it. Beyond this number that is seen in the
# sixth digit: for `jordan` in the first two steps, of 485 and 141.
STEEPEST_WHOLE = 100.0

# Entries are smaller in larger matrices: from here on products in one go keep within
# 5e-6 of the exact answer (a test).
LARGEST_SPLIT = 512


def split_segments(
    extent: int, schedule: Schedule, compute_dtype: str, segments: Segments
) -> int:
    """Return in how many first segments the product with X is split.

    `auto` promises quality, not digits, and is left alone, as are narrow dtypes;
    float64 has digits to spare.

    Args:
        extent: Of the Gram matrix, over which products with it sum.
        schedule: The schedule.
        compute_dtype: Dtype of the products.
        segments: Its steps; those in one segment share a Gram matrix.

    Example:
        >>> from keras_muon.schedules import SCHEDULES
        >>> jordan = SCHEDULES["jordan"]
        >>> segments = tuple((triple,) for triple in jordan.take())
        >>> split_segments(64, jordan, "float32", segments)
        2
    """
    digits = compute_dtype == "float32" and not schedule.compressed
    # A single row lacks no direction.
    if not digits or not 1 < extent <= LARGEST_SPLIT:
        return 0
    slopes = [math.prod(a for a, _, _ in segment) for segment in segments]
    rest = [math.prod(slopes[number:]) for number in range(len(slopes))]
    return len(list(itertools.takewhile(lambda s: s > STEEPEST_WHOLE, rest)))
