"""Minimax schedules: for given bounds, the best odd quintic at every step."""

from keras_muon.admissible import Triple
from keras_muon.messages import require_count, require_number
from keras_muon.schedules import Schedule

# Above this ratio of the bounds the exchange is ill-conditioned, and its limit, the
# classic quintic, is closer to the optimum than rounding.
NEARLY_EQUAL = 1.0 - 5e-6

# Below this share, float64 no longer tells the first step from an unbounded one.
SMALLEST_BOUND = 1e-12

LIMIT: Triple = (1.875, -1.25, 0.375)


def minimax_schedule(
    lower_bound: float,
    steps: int,
    *,
    cushion: float = 0.02407327424182761,
    safety: float = 1.01,
) -> Schedule:
    """Return the schedule with the least worst-case error at every step.

    Step by step, the quintic is the one nearest to 1 on the interval that still
    contains every singular value.

    Args:
        lower_bound: Smallest singular value to serve, as a share of the largest, in
            [1e-12, 1). Smaller values are served too, less well.
        steps: Number of steps, 1 or more.
        cushion: The interval is never wider than from `cushion` times its upper end,
            which keeps the first steps from being too steep. 0 switches it off.
        safety: See `Schedule`; 1.01 leaves room for rounding, 1 leaves none and is
            refused.

    Returns:
        A `Schedule` of `steps` triples whose tail repeats the classic quintic.

    Raises:
        ValueError: If an argument is outside its range, or the schedule is unsafe.

    Example:
        >>> minimax_schedule(1e-3, 5).steps
        5

    Source: Amsel et al. 2025, arXiv:2505.16932, theorem 3.1 and algorithm 2. The
    default cushion is the one that reproduces that paper's table.
    """
    lower = require_number(
        "lower_bound", lower_bound, minimum=SMALLEST_BOUND, below=1.0
    )
    require_number("cushion", cushion, below=1.0)
    upper = 1.0
    triples: list[Triple] = []
    require_count("steps", steps)
    # On until the classic quintic fits, so that the tail serves any number of steps.
    while len(triples) < steps or lower / upper < NEARLY_EQUAL:
        start = max(lower, cushion * upper)
        triple = _best_quintic(start, upper)
        if start > lower:
            triple = _recentred(triple, lower, upper)
        triples.append(triple)
        lower = _evaluate(triple, lower)
        upper = 2.0 - lower
    return Schedule(
        name=f"minimax_{lower_bound:g}",
        coefficients=(*triples, LIMIT),
        steps=steps,
        tail="repeat",
        safety=safety,
        source=f"minimax_schedule({lower_bound}, {steps}, cushion={cushion})",
    )


def _best_quintic(lower: float, upper: float) -> Triple:
    """Odd quintic with the smallest largest distance to 1 on [lower, upper].

    By Chebyshev's theorem its error takes its extreme value with alternating sign at
    four points: both ends, and the two inner points where its slope is zero.
    """
    if lower / upper >= NEARLY_EQUAL:
        a, b, c = LIMIT
        return (a / upper, b / upper**3, c / upper**5)
    inner = ((3 * lower + upper) / 4, (lower + 3 * upper) / 4)
    error, previous = float("inf"), 0.0
    for _ in range(100):
        triple, error = _equal_ripple((lower, *inner, upper))
        if abs(error - previous) < 1e-15:
            break
        inner, previous = _inner_extrema(triple), error
    return triple


def _equal_ripple(points: tuple[float, ...]) -> tuple[Triple, float]:
    """Solve p(x_i) = 1 + (-1)**i * error for the coefficients and the error."""
    rows = [
        [x, x**3, x**5, sign, 1.0]
        for x, sign in zip(points, (1.0, -1.0, 1.0, -1.0), strict=True)
    ]
    for column in range(4):
        pivot = max(range(column, 4), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for row in range(4):
            if row != column:
                factor = rows[row][column]
                rows[row] = [
                    value - factor * unit
                    for value, unit in zip(rows[row], rows[column], strict=True)
                ]
    a, b, c, error = (row[4] for row in rows)
    return (a, b, c), error


def _inner_extrema(triple: Triple) -> tuple[float, float]:
    """The two positive zeros of the slope a + 3*b*s**2 + 5*c*s**4."""
    a, b, c = triple
    root = (9 * b**2 - 20 * a * c) ** 0.5
    return (((-3 * b - root) / (10 * c)) ** 0.5, ((-3 * b + root) / (10 * c)) ** 0.5)


def _recentred(triple: Triple, lower: float, upper: float) -> Triple:
    """Scale the polynomial so that its values at both ends are centred at 1."""
    factor = 2.0 / (_evaluate(triple, lower) + _evaluate(triple, upper))
    a, b, c = triple
    return (a * factor, b * factor, c * factor)


def _evaluate(triple: Triple, s: float) -> float:
    a, b, c = triple
    return a * s + b * s**3 + c * s**5
