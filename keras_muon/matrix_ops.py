"""What the iteration asks of a carrier of matrices."""

from typing import Any, Literal, Protocol

from keras_muon.leading import Signs
from keras_muon.plan import Side

# A carrier's own matrix type; only the carrier looks inside.
Matrix = Any

# Which factor of a product is transposed.
Turned = Literal["left", "right"]


class MatrixOps(Protocol):
    """What a carrier must know. Matrices are the last two axes: in, out.

    What is divided, the X of `added` and the C of `fused` are not used again: a carrier
    may write there.
    """

    def gram(self, x: Matrix, side: Side) -> Matrix:
        """Return X X^T for side "in", X^T X for side "out"."""

    def fused(
        self, alpha: float, c: Matrix, beta: float, a: Matrix, b: Matrix
    ) -> Matrix:
        """Return alpha * C + beta * A @ B."""

    def applied(self, identity: float, total: Matrix, x: Matrix, side: Side) -> Matrix:
        """Return (identity * I + total) X for side "in", X (...) for side "out".

        A narrow dtype in which product and sum are rounded apart needs the sum inside
        of the brackets: both terms are several times as large as the result, and the
        rounding of a product reaches directions in which X is zero.
        """

    def step_factor(
        self, a: float, b: float, c: float, gram: Matrix
    ) -> tuple[float, Matrix]:
        """Return (a, H) with H = b R + c R R, or (0, a I + H), of a Gram matrix R."""

    def with_identity(self, a: float, x: Matrix) -> tuple[float, Matrix]:
        """Return (a, X), or (0, a I + X), of which X is not used again."""

    def symmetric(
        self, alpha: float, c: Matrix, beta: float, a: Matrix, b: Matrix
    ) -> Matrix:
        """Return alpha * C + beta * A @ B where both terms are symmetric.

        A and B commute, so half of the product is redundant.
        """

    def squared(self, x: Matrix) -> Matrix:
        """Return X X of a symmetric X."""

    def product(self, a: Matrix, b: Matrix, turned: Turned) -> Matrix:
        """Return A^T B if the left is turned, A B^T if the right is."""

    def mixed(self, x: Matrix, signs: Signs, side: Side) -> Matrix:
        """Return sums of signed rows (side "in") or columns (side "out").

        Each group of `leading.GROUP` gives one for each of its mixtures.
        """

    def combined(self, alpha: float, x: Matrix, beta: float, y: Matrix) -> Matrix:
        """Return alpha * X + beta * Y."""

    def scaled(self, alpha: float, x: Matrix) -> Matrix:
        """Return alpha * X."""

    def on_grid(self, x: Matrix, bits: int) -> Matrix:
        """Return X rounded to multiples of 2^-bits, in new memory."""

    def multiplied(self, x: Matrix, y: Matrix) -> Matrix:
        """Return X * Y for one Y per matrix, in the dtype of X."""

    def added(self, x: Matrix, y: Matrix, z: Matrix) -> Matrix:
        """Return X + Y * Z for one Y per matrix, in the dtype of X and Z."""

    def divided(self, x: Matrix, y: Matrix, dtype: str) -> Matrix:
        """Return X / Y for one Y per matrix, in another dtype."""

    def reciprocal(self, y: Matrix) -> Matrix:
        """Return 1 / Y for one Y per matrix."""

    def at_least(self, y: Matrix, least: float) -> Matrix:
        """Return max(Y, least) for one Y per matrix."""

    def root(self, y: Matrix) -> Matrix:
        """Return the square root of one Y per matrix."""

    def rest_of_one(self, y: Matrix, at_least: float) -> Matrix:
        """Return sqrt(max(1 - Y Y, at_least ** 2)) for one Y per matrix."""

    def largest_entry(self, x: Matrix) -> Matrix:
        """Return max |X| per matrix, with both axes kept.

        No gradient flows through it: no result depends on this unit, and the gradient
        of one divided by it overflows.
        """

    def frobenius_norm(self, x: Matrix) -> Matrix:
        """Return |X|_F, of squares summed first per row, then over rows.

        The two stages keep the float32 error near 1e-7 where a single sum over a
        large matrix loses three digits. Narrow dtypes are summed in float32.
        """

    def plain_norm(self, x: Matrix) -> Matrix | None:
        """Return |X|_F of a matrix whose squares neither overflow nor vanish.

        None where they do, of stacks, and where values are not there to be looked at.
        """

    def cast(self, x: Matrix, dtype: str) -> Matrix:
        """Return X in another dtype."""

    def dtype_of(self, x: Matrix) -> str:
        """Return the name of the dtype of X."""


class DerivedVerbs:
    """Verbs that follow from the others, for carriers that know no better way."""

    def step_factor(
        self: MatrixOps, a: float, b: float, c: float, gram: Matrix
    ) -> tuple[float, Matrix]:
        # A cubic step needs one product less.
        if not c:
            return a, self.scaled(b, gram)
        return a, self.symmetric(b, gram, c, gram, gram)

    def with_identity(self, a: float, x: Matrix) -> tuple[float, Matrix]:
        return a, x

    def added(self: MatrixOps, x: Matrix, y: Matrix, z: Matrix) -> Matrix:
        return self.combined(1.0, x, 1.0, self.multiplied(z, y))

    def plain_norm(self, x: Matrix) -> Matrix | None:
        return None
