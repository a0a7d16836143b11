"""What a graph can be asked for, checked before a node is made."""

from collections.abc import Sequence
from typing import NamedTuple

from keras_muon.admissible import Triple
from keras_muon.messages import require_choice, require_count, require_flag
from keras_muon.schedules import Schedule

# What ONNX Runtime computes on every processor. On CPUs it has no bfloat16 arithmetic,
# and it replaces float16 by float32 without a word, so neither would be what it says.
DTYPES = ("float32", "float64")
EMULATED = ("bfloat16", "float16")

# 18 is the first with the axes of ReduceMax as an input; 26 is the last that a released
# ONNX Runtime (1.31.1) loads.
OPSETS = range(18, 27)
DEFAULT_OPSET = 18

# Far beyond convergence, and still a small file.
MOST_STEPS = 1000

SIDES = ("auto", "in", "out")

# Panels of a symmetric product. ONNX Runtime's time on two cores, at 768 x 768, as a
# share of the whole product's: 0.68 to 0.82 with two, 0.72 with three, 0.60 to 0.68
# with four, which is (panels + 1) / (2 panels) of the operations.
MOST_PANELS = 4

# Below this extent a product is whole: there are more calls, and little to save. At 512
# rows the shares are 0.80 and 0.70.
SMALLEST_PANELLED = 512

# ONNX writes an extent as a signed 64-bit number.
LARGEST_EXTENT = 2**63 - 1

Extent = int | str


class GraphShape(NamedTuple):
    """The extents of a graph's matrices; a string is the name of an unknown one."""

    batch: Extent | None
    fan_in: Extent
    fan_out: Extent

    @property
    def extents(self) -> tuple[Extent, ...]:
        """The shape of the graph's tensors."""
        matrix = (self.fan_in, self.fan_out)
        return matrix if self.batch is None else (self.batch, *matrix)

    @property
    def fixed_matrix(self) -> tuple[int, int] | None:
        """The extents of a matrix; None if one is unknown."""
        if isinstance(self.fan_in, str) or isinstance(self.fan_out, str):
            return None
        return self.fan_in, self.fan_out

    @property
    def is_symbolic(self) -> bool:
        """Whether an extent of the matrices themselves is unknown."""
        return self.fixed_matrix is None


def checked_shape(
    shape: object, batch: object = None, dynamic: bool | None = None
) -> GraphShape:
    """Return the extents of a graph, or refuse them by name.

    Args:
        shape: Two extents, in and out; with `dynamic` names of unknown extents too.
        batch: Number of matrices, the name of an unknown number, or None for a graph
            of one matrix without a batch axis.
        dynamic: Whether names are allowed in `shape`; None if they never are.

    Returns:
        The extents.

    Raises:
        TypeError: If an extent is neither a whole number nor, where allowed, a name.
        ValueError: If an extent is below 1, or there are not two.

    Example:
        >>> checked_shape((8, 4), batch="k").extents
        ('k', 8, 4)
    """
    if dynamic is not None:
        require_flag("dynamic", dynamic)
    if not isinstance(shape, Sequence) or isinstance(shape, str) or len(shape) != 2:
        raise ValueError(
            "`shape` must be the two extents of one matrix, (in, out); received "
            f"{shape!r}. The number of matrices in a stack is `batch`."
        )
    names = [extent for extent in shape if isinstance(extent, str)]
    if names and dynamic is None:
        raise ValueError(
            f"`shape` has the symbolic extents {names}, but the scale of a step "
            "depends on them. Pass whole numbers; only `batch` may be a name."
        )
    if names and not dynamic:
        raise ValueError(
            f"`shape` has the symbolic extents {names}. Pass dynamic=True for a graph "
            "that chooses its products when it runs, or whole numbers for a graph "
            "without control flow."
        )
    if dynamic and not names:
        raise ValueError(
            f"`dynamic` is for symbolic extents; received {tuple(shape)}. Name one, "
            "such as ('in', 'out'), or leave `dynamic` out."
        )
    if batch in names:
        raise ValueError(
            f"`batch` must have a name of its own; received {batch!r}, as in `shape` "
            f"{tuple(shape)}, and one name is one extent."
        )
    fan_in, fan_out = (_extent("shape", extent) for extent in shape)
    return GraphShape(
        None if batch is None else _extent("batch", batch), fan_in, fan_out
    )


def _extent(argument: str, received: object) -> Extent:
    if isinstance(received, str):
        if not received.isidentifier():
            raise ValueError(
                f"`{argument}`: a symbolic extent needs a name of letters, digits and "
                f"underscores; received {received!r}."
            )
        return received
    return _whole_extent(argument, received)


def _whole_extent(argument: str, received: object) -> int:
    extent = require_count(argument, received)
    if extent > LARGEST_EXTENT:
        raise ValueError(
            f"`{argument}` must be at most {LARGEST_EXTENT}, which is what ONNX can "
            f"write; received {extent}."
        )
    return extent


def checked_extents(shape: object) -> tuple[int, ...]:
    """Return the extents of a tensor of any rank, or refuse them by name."""
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise TypeError(
            f"`shape` must be a sequence of whole numbers; received {shape!r}. A "
            "single axis is written (8,), a scalar ()."
        )
    return tuple(_whole_extent("shape", extent) for extent in shape)


def checked_dtype(dtype: object) -> str:
    """Return `dtype` if ONNX Runtime computes in it, or refuse it."""
    way_out = ""
    if isinstance(dtype, str) and dtype in EMULATED:
        way_out = (
            "ONNX Runtime has no bfloat16 arithmetic on CPUs, and computes float16 in "
            f"float32 there. Pass dtype='float32', emulate={dtype!r}: every product "
            "is then rounded as it would be."
        )
    return require_choice("dtype", dtype, DTYPES, way_out)


def checked_emulation(emulate: object, dtype: str) -> str | None:
    """Return `emulate` if it is a dtype to be emulated in float32, or refuse it."""
    if emulate is None:
        return None
    name = require_choice("emulate", emulate, EMULATED, "None emulates nothing.")
    if dtype != "float32":
        raise ValueError(
            f"`emulate` rounds float32 products; received emulate={emulate!r} with "
            f"dtype={dtype!r}. Pass dtype='float32'."
        )
    return name


def checked_side(side: object) -> str:
    """Return `side` if it is one, or refuse it."""
    way_out = "It is the side of the Gram matrix: X X^T or X^T X."
    return require_choice("side", side, SIDES, way_out)


def checked_opset(opset: object) -> int:
    """Return `opset` if a released runtime loads it, or refuse it."""
    whole = hasattr(opset, "__index__") and not isinstance(opset, bool)
    if not whole or opset.__index__() not in OPSETS:  # type: ignore[attr-defined]
        raise ValueError(
            f"`opset` must be a whole number between {OPSETS[0]} and {OPSETS[-1]}, "
            f"which released versions of ONNX Runtime load; received {opset!r}."
        )
    number = opset.__index__()  # type: ignore[attr-defined]
    # Here, for --help to import no onnx.
    import onnx

    if number > onnx.defs.onnx_opset_version():
        raise ValueError(
            f"`opset` {number} is newer than onnx {onnx.__version__} knows, up to "
            f"{onnx.defs.onnx_opset_version()}. Upgrade onnx, or pass a lower number."
        )
    return number


def checked_triples(schedule: Schedule, steps: int | None) -> tuple[Triple, ...]:
    """Return one triple per step, or refuse more steps than a graph should unroll."""
    if steps is not None and require_count("steps", steps) > MOST_STEPS:
        raise ValueError(
            f"`steps` must be at most {MOST_STEPS}, since every step is written down; "
            f"received {steps}. Five to ten are usual."
        )
    return schedule.take(steps)
