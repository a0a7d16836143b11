"""How the leading singular values of an update are found and compressed.

Updates of real training are nearly low-rank: a few directions are ten to a hundred
times as large as the others and use up the range that an iteration has. Products with a
basis of those directions bring their values down to the size of the rest, for the cost
of a fraction of one step, and two steps become unnecessary.
"""

import functools
import itertools
import math
from collections.abc import Iterator

from keras_muon.admissible import Triple
from keras_muon.minimax import minimax_schedule

# For every group of rows, for every mixture of it, the sign of each member.
Signs = tuple[tuple[tuple[int, ...], ...], ...]


def held_by_bfloat16(triples: tuple[Triple, ...]) -> tuple[Triple, ...]:
    """Return triples whose b and c are bfloat16 numbers, with the same sum.

    Some backends round a factor to the dtype of what it multiplies. That of a singular
    value of 1, a + b + c, would change by 0.003 in bfloat16, and compression subtracts
    what such values were from what they are.

    Example:
        >>> [sum(triple) for triple in held_by_bfloat16(((2.0, -1.501, 0.501),))]
        [1.0]
    """
    return tuple(
        (a + (b - _rounded(b)) + (c - _rounded(c)), _rounded(b), _rounded(c))
        for a, b, c in triples
    )


def _rounded(number: float) -> float:
    """Round to the 8 significant bits of bfloat16."""
    mantissa, exponent = math.frexp(number)
    return math.ldexp(round(mantissa * 2**8), exponent - 8)


# Rows are mixed in groups of 16, and every group gives from one to three mixtures, so
# that the basis has from 1/16 to 3/16 of the rows. Large matrices need less to keep the
# contract: five Jordan steps start from a norm that grows with the rows. It is nearest
# to a breach where rows differ in scale; one mixture less leaves 1.06 of Jordan's error
# there at 384 rows and at 512, where 1.05 are allowed (a test).
GROUP = 16
MIXTURES_BELOW = {512: 3, 768: 2}
MIXTURES = 1

# The singular values of the basis, about the squares of the update's. Only the largest
# must come out as 1: what is half in the basis is half compressed.
BASIS_TRIPLES = held_by_bfloat16(minimax_schedule(5e-3, 6).take())

# The leading singular values themselves, which need not become equal.
VALUE_TRIPLES = held_by_bfloat16(minimax_schedule(8e-2, 2).take())

# What remains beside the basis, as a share of |X| per root of its dimension, counts as
# at least this: less is rounding, and would be amplified. Rounding is about 6e-8 of
# |X| in float32. In bfloat16 that of the basis is 2e-3; on outer products 1e-2 leaves
# an error of 0.7, 2e-2 one of 0.25 and 4e-2 one of 0.45, beside Jordan's 0.30.
SMALLEST_REST = {"float64": 1e-3, "float32": 1e-3, "bfloat16": 2e-2}


def basis_size(rows: int) -> int:
    """Return the number of directions that are compressed; 0 if rows do not divide.

    Example:
        >>> basis_size(384), basis_size(768), basis_size(100)
        (72, 48, 0)
    """
    return 0 if rows % GROUP else _mixtures(rows) * (rows // GROUP)


@functools.cache
def mixing_signs(rows: int) -> Signs:
    """Return the signs with which rows are added.

    They look random, so that no structure of a model is orthogonal to them, and are the
    same on every machine.

    Example:
        >>> [len(group) for group in mixing_signs(32)]
        [3, 3]

    Source: a linear congruential generator with the constants of ISO C's example; sums
    with random signs as in Charikar, Chen and Farach-Colton 2002 (CountSketch).
    """
    signs = _signs()
    return tuple(
        tuple(tuple(itertools.islice(signs, GROUP)) for _ in range(_mixtures(rows)))
        for _ in range(rows // GROUP)
    )


def _mixtures(rows: int) -> int:
    """Return how many mixtures a group gives."""
    fitting = (count for below, count in MIXTURES_BELOW.items() if rows < below)
    return next(fitting, MIXTURES)


def _signs() -> Iterator[int]:
    state = 1
    while True:
        state = (1103515245 * state + 12345) % 2**31
        yield 1 if state >> 16 & 1 else -1
