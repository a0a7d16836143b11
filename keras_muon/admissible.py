"""Which polynomials are fit for singular values: positive, and bounded."""

import math

Triple = tuple[float, float, float]

# Rounding can leave the largest singular value a little above 1 after the division
# by the norm: 1.0034 was measured for a bfloat16 norm of a rank-one matrix.
OVERSHOOT = 1.005

# Beyond twice the wanted value, the next odd polynomial is on its way to infinity.
LARGEST_VALUE = 2.0


def check_range(name: str, triples: tuple[Triple, ...]) -> None:
    """Refuse triples that change a sign or blow up on singular values.

    Every step maps 0 to 0 and is continuous, so as long as it is positive on (0, u]
    the image of (0, u] is exactly (0, largest value]: no grid is needed.

    Args:
        name: The schedule's name, for the message.
        triples: One (a, b, c) per step, in order.

    Raises:
        ValueError: If a step returns zero or less, or more than `LARGEST_VALUE`, for a
            value that the steps before it can produce.
    """
    largest = OVERSHOOT
    for step, triple in enumerate(triples, start=1):
        if not _is_positive(triple, largest):
            raise ValueError(
                f"Schedule {name!r} changes sign: step {step}, {triple}, is not "
                f"positive on all of (0, {largest:.4g}], so it would turn part of the "
                "update around. Choose other coefficients, or raise `safety`."
            )
        largest = _largest_value(triple, largest)
        if largest > LARGEST_VALUE:
            raise ValueError(
                f"Schedule {name!r} blows up: step {step} takes a singular value of at "
                f"most {OVERSHOOT} to {largest:.4g}, more than {LARGEST_VALUE:g}. "
                "Raise `safety` (1.01 is common), or choose other coefficients."
            )


def _is_positive(triple: Triple, largest: float) -> bool:
    """Whether a + b*y + c*y**2 > 0 for every y in (0, largest**2]."""
    a, b, c = triple
    end = largest**2
    values = [a, a + b * end + c * end**2]
    if c and 0 < -b / (2 * c) < end:
        values.append(a - b * b / (4 * c))
    return min(values) > 0


def _largest_value(triple: Triple, largest: float) -> float:
    """Maximum of a*s + b*s**3 + c*s**5 on [0, largest]."""
    a, b, c = triple
    candidates = [largest]
    # The derivative a + 3*b*y + 5*c*y**2 is quadratic in y = s**2. This form of its
    # zeros loses no digits where c is small, and includes c = 0.
    root = 9 * b * b - 20 * a * c
    if root >= 0:
        half = -(3 * b + math.copysign(math.sqrt(root), b)) / 2
        candidates += [half / (5 * c)] if c else []
        candidates += [a / half] if half else []
    inner = [math.sqrt(y) for y in candidates[1:] if 0 < y < largest**2]
    return max(a * s + b * s**3 + c * s**5 for s in [largest, *inner])
