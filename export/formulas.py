"""What a graph computes as formulas with its numbers, for readers of `doc_string`."""

from collections.abc import Sequence
from typing import Any

from keras_muon.admissible import Triple
from keras_muon.leading import BASIS_TRIPLES, GROUP, VALUE_TRIPLES
from keras_muon.plan import Leading
from keras_muon.split_products import BITS_OF_FACTOR, BITS_OF_X

FORMULA = """\
X <- U / |U|_F, then for every triple (a, b, c): A = X X^T, X <- a X + (b A + c A A) X.
U is `update`, of shape {shape}; the last X is `polar_factor`.
Schedule {name}, in {dtype}: {triples}."""

COMPRESSED_FORMULA = """\
X <- U / |U|_F.  Z = X (S X)^T, Y = N(Z; B), T = Y^T X,
t = sqrt(max(1 - |T|_F^2, {others} * {smallest_rest}^2) / {others}), \
X <- X + Y (t N(T; V) - T).
X <- X / |X|_8, then for every triple (a, b, c): A = X X^T, X <- a X + (b A + c A A) X.
This compresses {count} leading singular values. S, a constant of signs, adds \
every {group} rows to {mixtures}. |X|_8 is the Schatten norm, |A A|_F^(1/4). N(Z; B)
is Z / |Z|_F after a step per triple of B. If U has more rows than columns, all of this
holds for its transpose.
U is `update`, of shape {shape}; the last X is `polar_factor`.
Schedule {name}, in {dtype}: {triples}. B: {basis}. V: {values}."""

SPLIT = """\
For float32 to keep its digits, the first {count} steps are taken of V = U / max |U|,
with s = 1 / |V|_F: A = (s V) (s V)^T, H = b A + c A A, and V <- a V + H V is the sum of
f V1 + H1 V1, which is exact, and of f V2 + (a - f) V + H1 V2 + H2 V. V1 is V in
multiples of 2^-{of_x}; f and H1 are a and H in multiples of 2^(e - {of_factor}), 2^e
the power of two above a; V2 is V - V1, H2 is H - H1. After these steps X is s V."""

PANELLED = """\
Of a large symmetric product only row panels are computed, from the diagonal to the
right; what lies below the diagonal is mirrored."""


def formula_of(
    extents: Sequence[int | str],
    schedule: str,
    dtype: str,
    triples: Sequence[Triple],
    leading: Leading | None,
    split: int,
) -> str:
    """Return the formula of an iteration.

    Args:
        extents: Of the update; a string names an unknown one.
        schedule: Its name.
        dtype: Of the products.
        triples: One (a, b, c) per step.
        leading: How leading singular values are compressed; None if they are not.
        split: In how many first steps the product with X is split.
    """
    about = {
        "shape": " x ".join(map(str, extents)),
        "name": schedule,
        "dtype": dtype,
        "triples": _shown(triples),
    }
    if leading is not None:
        return COMPRESSED_FORMULA.format(**about, **_about(leading))
    formula = FORMULA.format(**about)
    if not split:
        return formula
    grids = {"of_x": BITS_OF_X, "of_factor": BITS_OF_FACTOR}
    return f"{formula}\n{SPLIT.format(count=split, **grids)}"


def _about(leading: Leading) -> dict[str, Any]:
    return {
        "count": leading.count,
        "others": leading.others,
        "smallest_rest": leading.smallest_rest,
        "mixtures": len(leading.signs[0]),
        "group": GROUP,
        "basis": _shown(BASIS_TRIPLES),
        "values": _shown(VALUE_TRIPLES),
    }


def _shown(triples: Sequence[Triple]) -> str:
    return ", ".join(map(str, triples))
