"""Scalings: how far a step goes, as a function of the matrix's shape.

NS makes every singular value of an update about 1, whatever the gradient's size. The
factors below say what that 1 is worth for a matrix of fan_in inputs and fan_out
outputs.
"""

import math
from collections.abc import Callable

from keras_muon.messages import require_choice, require_count, require_number

# Liu et al. 2025, section 2.2: AdamW's updates have a root mean square of 0.2 to 0.4.
ADAMW_RMS = 0.2

Scaling = Callable[[int, int], float]


def naive_scale(fan_in: int, fan_out: int) -> float:
    """Return 1: every matrix moves by the same amount in the spectral norm.

    Args:
        fan_in: Inputs of the matrix, 1 or more.
        fan_out: Outputs of the matrix, 1 or more.

    Returns:
        1.0.

    Example:
        >>> naive_scale(256, 1024)
        1.0

    Source: steepest descent under the spectral norm, Bernstein and Newhouse 2024,
    arXiv:2409.20325.
    """
    _check_extents(fan_in, fan_out)
    return 1.0


def original_scale(fan_in: int, fan_out: int) -> float:
    """Return sqrt(max(1, fan_out / fan_in)), the first published factor.

    Args:
        fan_in: Inputs of the matrix, 1 or more.
        fan_out: Outputs of the matrix, 1 or more.

    Returns:
        A factor of at least 1.

    Example:
        >>> original_scale(256, 1024)
        2.0

    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
    """
    _check_extents(fan_in, fan_out)
    return math.sqrt(max(1.0, fan_out / fan_in))


def mup_scale(fan_in: int, fan_out: int) -> float:
    """Return sqrt(fan_out / fan_in): rates carry over between widths.

    Args:
        fan_in: Inputs of the matrix, 1 or more.
        fan_out: Outputs of the matrix, 1 or more.

    Returns:
        The factor that makes the step's norm, as a map between vectors measured by
        their root mean square, equal to the learning rate.

    Example:
        >>> mup_scale(1024, 256)
        0.5

    Source: Yang, Simon and Bernstein 2023, arXiv:2310.17813, condition 1.
    """
    _check_extents(fan_in, fan_out)
    return math.sqrt(fan_out / fan_in)


def moonlight_scale(fan_in: int, fan_out: int, rms: float = ADAMW_RMS) -> float:
    """Return rms * sqrt(max(fan_in, fan_out)): AdamW's rate and decay carry over.

    A polar factor has a root mean square of 1 / sqrt(max(fan_in, fan_out)) per entry,
    so that large matrices would move too little. With this factor every matrix moves
    by `rms` per entry, as it does under AdamW.

    Args:
        fan_in: Inputs of the matrix, 1 or more.
        fan_out: Outputs of the matrix, 1 or more.
        rms: Wanted root mean square of the update per entry, dimensionless.

    Returns:
        The factor.

    Example:
        >>> moonlight_scale(256, 1024)
        6.4

    Source: Liu et al. 2025, arXiv:2502.16982, lemma 1 and equation (4).
    """
    _check_extents(fan_in, fan_out)
    return rms * math.sqrt(max(fan_in, fan_out))


SCALINGS: dict[str, Scaling] = {
    "naive": naive_scale,
    "original": original_scale,
    "mup": mup_scale,
    "moonlight": moonlight_scale,
}


def get_scaling(scaling: str, *, rms: float = ADAMW_RMS) -> Scaling:
    """Return the function (fan_in, fan_out) -> factor of a scaling's name.

    Args:
        scaling: A name in `SCALINGS`.
        rms: Wanted root mean square of the update per entry, dimensionless. Used by
            `"moonlight"` alone.

    Returns:
        The function.

    Raises:
        ValueError: If the name is unknown or `rms` is not positive.

    Example:
        >>> get_scaling("original")(256, 1024)
        2.0
    """
    require_number("rms", rms, open_minimum=True)
    scaling = require_choice("scaling", scaling, SCALINGS)
    if scaling == "moonlight":
        return lambda fan_in, fan_out: moonlight_scale(fan_in, fan_out, rms)
    return SCALINGS[scaling]


def _check_extents(fan_in: int, fan_out: int) -> None:
    require_count("fan_in", fan_in)
    require_count("fan_out", fan_out)
