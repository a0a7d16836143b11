"""How the leading singular values of an update are found and compressed.

Updates of real training are nearly low-rank: a few directions are ten to a hundred
times as large as the others and use up the range that an iteration has. Products with a
basis of those directions bring their values down to the size of the rest, for the cost
of a fraction of one step, and two steps become unnecessary.
"""

import functools
import math

from keras_muon.admissible import Triple
from keras_muon.minimax import minimax_schedule


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


# Rows are mixed in groups of 16, and every group gives 3 mixtures: the basis has 3/16
# of the rows. On updates captured from GPTs of width 128 to 512, a ConvNet and a ViT
# that leaves 0.97 of Jordan's error on the worst update; 2 of 16 leave 1.17.
GROUP = 16
MIXTURES = 3

# The singular values of the basis, about the squares of the update's. Only the largest
# must come out as 1: what is half in the basis is half compressed.
BASIS_TRIPLES = held_by_bfloat16(minimax_schedule(1e-2, 5).take())

# The leading singular values themselves, which need not become equal.
VALUE_TRIPLES = held_by_bfloat16(minimax_schedule(2e-2, 3).take())

# What remains beside the basis, as a share of |X| per root of its dimension, counts as
# at least this: less is rounding, and would be amplified. Rounding is about 6e-8 of
# |X| in float32. In bfloat16 that of the basis is 2e-3; on outer products 1e-2 leaves
# an error of 0.7, 2e-2 one of 0.25 and 4e-2 one of 0.45, beside Jordan's 0.30.
SMALLEST_REST = {"float64": 1e-3, "float32": 1e-3, "bfloat16": 2e-2}


def basis_size(rows: int) -> int:
    """Return the number of directions that are compressed; 0 if rows do not divide.

    Example:
        >>> basis_size(768), basis_size(100)
        (144, 0)
    """
    return 0 if rows % GROUP else MIXTURES * (rows // GROUP)


@functools.cache
def mixing_signs(rows: int) -> tuple[int, ...]:
    """Return the signs with which rows are added: (groups, MIXTURES, GROUP), flat.

    They look random, so that no structure of a model is orthogonal to them, and are the
    same on every machine.

    Source: a linear congruential generator with the constants of ISO C's example; sums
    with random signs as in Charikar, Chen and Farach-Colton 2002 (CountSketch).
    """
    state, signs = 1, []
    for _ in range(MIXTURES * rows):
        state = (1103515245 * state + 12345) % 2**31
        signs.append(1 if state >> 16 & 1 else -1)
    return tuple(signs)
