"""How far a result is from the exact polar factor, and what is promised about it.

Everything is NumPy in float64; the exact factor comes from the SVD.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

# Singular values below this share of the largest are not counted. Float32 rounds the
# entries of an update to 6e-8 of themselves, and sums of them to a few times that: what
# remains in such a direction is noise, and no factor of it is right or wrong.
NUMERICAL_RANGE = 1e-6

BASELINE = "jordan:float32"
# On one matrix a schedule may be this much worse than Jordan's, never on average.
ALLOWED_RATIO = 1.05
# Up to this condition all singular values count as one.
ONE_VALUE = 1.01
SYNTHETIC = "synthetic"


@dataclasses.dataclass(frozen=True)
class Row:
    """The errors of all methods on one matrix.

    Args:
        source: The model it comes from, or `SYNTHETIC`.
        name: Its name.
        shape: (in, out).
        rank: Number of singular values in the numerical range.
        condition: The largest of them over the smallest; 1 for zero.
        errors: Relative error by method.
    """

    source: str
    name: str
    shape: tuple[int, ...]
    rank: int
    condition: float
    errors: dict[str, float]


class PolarFactor:
    """The exact polar factor of a matrix on its numerical range.

    Args:
        x: A matrix (in, out).

    Example:
        >>> PolarFactor(np.diag([3.0, 0.0])).error(np.diag([0.9, 0.5])).round(3)
        np.float64(0.1)

    Source: Higham 2008, Functions of Matrices, theorem 8.1.
    """

    def __init__(self, x: np.ndarray):
        u, s, vt = np.linalg.svd(x.astype("float64"), full_matrices=False)
        self.rank = int((s > NUMERICAL_RANGE * s[0]).sum())
        self.condition = float(s[0] / s[self.rank - 1]) if self.rank else 1.0
        self.left, self.right = u[:, : self.rank], vt[: self.rank]

    def error(self, result: np.ndarray) -> float:
        """Return |O - P| / |P| without what `result` does inside the null space.

        Left out is only the part that maps what `x` does not touch to what it does not
        reach. What leaks out of the range, or into it, counts. A matrix of full rank
        loses nothing, and for zero the norm of the result is returned.

        Args:
            result: The approximate factor O.
        """
        difference = result.astype("float64") - self.left @ self.right
        inside = difference - self.left @ (self.left.T @ difference)
        inside -= (inside @ self.right.T) @ self.right
        if self.rank == 0:
            return float(np.linalg.norm(result))
        return float(np.linalg.norm(difference - inside) / self.rank**0.5)


def jordan_band(triples: Sequence[tuple[float, float, float]]) -> float:
    """Return the largest |p(s) - 1| of a schedule where it has arrived.

    Jordan's polynomial never settles: it moves values about 1 for ever. On a matrix of
    one singular value its error is anything from 0 to this, by luck.

    Args:
        triples: One (a, b, c) per step.
    """
    s = np.linspace(0.05, 1.0, 10_000)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return float(np.abs(s - 1.0).max())


def mean_error(rows: Sequence[Row], method: str) -> float:
    """Return the mean over matrices."""
    return float(np.mean([row.errors[method] for row in rows]))


def allowed(row: Row, band: float) -> float:
    """Return the largest error that is no breach of contract on one matrix.

    Args:
        row: The matrix.
        band: See `jordan_band`; what is allowed where all singular values are one.
    """
    limit = ALLOWED_RATIO * row.errors[BASELINE]
    one_value = row.rank > 0 and row.condition < ONE_VALUE
    return max(limit, band) if one_value else limit


def breaches(rows: Sequence[Row], method: str, band: float) -> list[str]:
    """Return in words where a method breaks the contract.

    The contract: over the matrices of real training its mean error is at most
    Jordan's, the same over the synthetic ones, and on none of them is it above
    `allowed`.

    Args:
        rows: All matrices.
        method: The method to judge.
        band: See `jordan_band`.
    """
    found = []
    real = [row for row in rows if row.source != SYNTHETIC]
    synthetic = [row for row in rows if row.source == SYNTHETIC]
    for name, part in (("captures", real), ("synthetic cases", synthetic)):
        if not part:
            continue
        mean, limit = mean_error(part, method), mean_error(part, BASELINE)
        if not mean <= limit:
            found.append(f"{method}: mean over {name} {mean:.4f}, Jordan's {limit:.4f}")
    for row in rows:
        error, limit = row.errors[method], allowed(row, band)
        if not error <= limit:
            found.append(f"{method}: {row.name}: {error:.4f}, allowed {limit:.4f}")
    return found
