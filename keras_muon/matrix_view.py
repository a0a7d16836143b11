"""MatrixView: which axes of a kernel are in, which are out, which are batch.

A kernel of any rank is a stack of linear maps. Its matrix view names the axes that
are summed over (in), the axes that are produced (out) and the axes that number
independent maps (batch). It is the only source of `fan_in` and `fan_out`.
"""

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Self

from keras_muon.messages import unknown_name


@dataclasses.dataclass(frozen=True)
class MatrixView:
    """A kernel seen as a stack of (fan_in, fan_out) matrices.

    Args:
        shape: The kernel's shape. Every extent is 1 or more.
        in_axes: Axes that are summed over when the layer is applied.
        out_axes: Axes that the layer produces.
        batch_axes: Axes that number independent matrices: experts, groups.
        factors: The same shape with axes split in two, if a part of an axis has a
            role of its own; the three lists of axes then count in `factors`. The
            kernel of a convolution with `g` groups, (3, 3, i, g * o), has factors
            (3, 3, i, g, o).

    Raises:
        ValueError: If the axes do not cover each axis exactly once, or `factors` does
            not describe `shape`.

    Example:
        >>> view = MatrixView((64, 8, 16), in_axes=(0,), out_axes=(1, 2))
        >>> view.fan_in, view.fan_out
        (64, 128)
    """

    shape: tuple[int, ...]
    in_axes: tuple[int, ...]
    out_axes: tuple[int, ...]
    batch_axes: tuple[int, ...] = ()
    factors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _integers(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if min(self.shape, default=0) < 1:
            raise ValueError(
                "`shape` must have at least one axis, each of extent 1 or more; "
                f"received {self.shape}."
            )
        object.__setattr__(self, "factors", self.factors or self.shape)
        _check_factors(self.shape, self.factors)
        rank = len(self.factors)
        for name in ("in_axes", "out_axes", "batch_axes"):
            axes = getattr(self, name)
            wrapped = tuple(a + rank if -rank <= a < 0 else a for a in axes)
            object.__setattr__(self, name, wrapped)
        if sorted(self.permutation) != list(range(rank)):
            raise ValueError(
                f"The axes of a view must cover each of the {rank} axes of "
                f"{self.factors} exactly once; received batch_axes={self.batch_axes}, "
                f"in_axes={self.in_axes}, out_axes={self.out_axes}."
            )

    @classmethod
    def of_last_axes(cls, shape: Sequence[int]) -> "MatrixView":
        """Return the view of a stack of matrices: last two axes in and out.

        Args:
            shape: At least two extents.

        Returns:
            A view whose other axes are batch.

        Raises:
            ValueError: If there are fewer than two axes.

        Example:
            >>> MatrixView.of_last_axes((12, 64, 64)).batch
            12
        """
        rank = len(shape)
        if rank < 2:
            raise ValueError(
                f"A matrix needs at least 2 axes; received shape {tuple(shape)}. "
                "Biases and gains belong to AdamW; a flattened matrix must be reshaped."
            )
        return cls(tuple(shape), (rank - 2,), (rank - 1,), tuple(range(rank - 2)))

    # Kept once computed: eager steps ask for these of every kernel.

    @functools.cached_property
    def batch(self) -> int:
        """Number of independent matrices."""
        return math.prod(self.factors[axis] for axis in self.batch_axes)

    @functools.cached_property
    def fan_in(self) -> int:
        """Entries summed over per output."""
        return math.prod(self.factors[axis] for axis in self.in_axes)

    @functools.cached_property
    def fan_out(self) -> int:
        """Outputs per matrix."""
        return math.prod(self.factors[axis] for axis in self.out_axes)

    @functools.cached_property
    def permutation(self) -> tuple[int, ...]:
        """The order of axes that brings batch, in, out together."""
        return (*self.batch_axes, *self.in_axes, *self.out_axes)

    @functools.cached_property
    def inverse_permutation(self) -> tuple[int, ...]:
        """The order of axes that undoes `permutation`."""
        order = self.permutation
        return tuple(order.index(axis) for axis in range(len(order)))

    @functools.cached_property
    def permuted_factors(self) -> tuple[int, ...]:
        """The extents after `permutation`."""
        return tuple(self.factors[axis] for axis in self.permutation)

    @functools.cached_property
    def matrix_shape(self) -> tuple[int, int, int]:
        """(batch, fan_in, fan_out)."""
        return (self.batch, self.fan_in, self.fan_out)

    @functools.cached_property
    def entries(self) -> int:
        """Number of entries of all matrices."""
        return math.prod(self.matrix_shape)

    @functools.cached_property
    def is_matrix(self) -> bool:
        """Whether the kernel, as it is, is its one matrix (in, out)."""
        ordered = self.permutation == tuple(range(len(self.factors)))
        return ordered and self.batch == 1 and self.shape == self.matrix_shape[1:]

    @functools.cached_property
    def turned(self) -> Self:
        """The view of the transposed matrices.

        Example:
            >>> MatrixView((8, 20), in_axes=(0,), out_axes=(1,)).turned.matrix_shape
            (1, 20, 8)
        """
        return dataclasses.replace(self, in_axes=self.out_axes, out_axes=self.in_axes)

    def to_json(self) -> dict[str, list[int]]:
        """Return the view as a dictionary of plain lists."""
        return {name: list(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict) -> "MatrixView":
        """Return the view that `to_json` wrote."""
        return cls(**values)


def view_from(wanted: Any, shape: tuple[int, ...], described: str) -> MatrixView:
    """Return the view that a user wrote down for a variable.

    Args:
        wanted: A `MatrixView`, or a dictionary of `in_axes`, `out_axes` and, where
            there are independent matrices, `batch_axes` and `factors`.
        shape: The variable's shape.
        described: Where it stands, for the message.

    Returns:
        The view of that shape.

    Raises:
        ValueError: If it is neither, or does not fit the shape.

    Example:
        >>> view_from({"in_axes": (1,), "out_axes": (0,)}, (8, 4), "w").fan_in
        4
    """
    wanted = checked_axes(wanted, described)
    try:
        view = MatrixView(**{"shape": shape, **wanted})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{described} is no view of {shape}: {error}") from None
    if view.shape != shape:
        raise ValueError(
            f"{described} is a view of shape {view.shape}, but the variable has shape "
            f"{shape}."
        )
    return view


def checked_axes(wanted: Any, described: str) -> Mapping[str, Any]:
    """Return what a user wrote down as names of axes, before a shape is known.

    Args:
        wanted: As for `view_from`.
        described: Where it stands, for the message.

    Raises:
        ValueError: If it is neither a view nor a dictionary of axes.
    """
    names = [f.name for f in dataclasses.fields(MatrixView)]
    if isinstance(wanted, MatrixView):
        wanted = wanted.to_json()
    if not isinstance(wanted, Mapping):
        raise ValueError(
            f"{described} must be 'adamw', a MatrixView, or a dictionary of in_axes, "
            f"out_axes and batch_axes; received {wanted!r}."
        )
    for name in wanted:
        if name not in names:
            raise unknown_name(f"axes of {described}", name, names[1:])
    if not {"in_axes", "out_axes"} <= wanted.keys():
        raise ValueError(
            f"{described} must name both in_axes and out_axes; received "
            f"{dict(wanted)!r}. Example: dict(in_axes=(0,), out_axes=(1,))."
        )
    return wanted


def _integers(name: str, values: object) -> tuple[int, ...]:
    try:
        return tuple(value.__index__() for value in values)  # type: ignore[attr-defined]
    except (TypeError, AttributeError):
        raise TypeError(
            f"`{name}` must be a sequence of integers; received {values!r}. A single "
            "axis is written (0,)."
        ) from None


def _check_factors(shape: tuple[int, ...], factors: tuple[int, ...]) -> None:
    """Refuse factors that are not `shape` with some axes split."""
    ends, inner_ends = (
        list(itertools.accumulate(extents, operator.mul))
        for extents in (shape, factors)
    )
    fine_enough = min(factors) >= 1 and len(factors) >= len(shape)
    if fine_enough and set(ends) <= set(inner_ends) and ends[-1] == inner_ends[-1]:
        return
    raise ValueError(
        f"`factors` must be `shape` with axes split, in order; received {factors} for "
        f"shape {shape}."
    )
