"""Which matrices go through one Newton-Schulz iteration as a stack."""

from collections.abc import Sequence

from keras_muon.devices import runs_on_accelerator
from keras_muon.matrix_view import MatrixView

# On a CPU a stack of small matrices saves calls, a stack of large ones only costs a
# copy: measured at 16 x 64 x 64 (torch 12 times faster) and 8 x 512 x 512 (slower).
LARGEST_STACKED_ON_CPU = 512 * 128

Batched = str | bool


def check_batched(batched: object) -> Batched:
    """Return `batched` if it is "auto", True or False, or refuse it."""
    if batched is True or batched is False or batched == "auto":
        return batched
    raise ValueError(f"`batched` must be 'auto', True or False; received {batched!r}.")


def stacks(
    views: Sequence[MatrixView], dtypes: Sequence[str], batched: Batched
) -> list[list[int]]:
    """Group matrices of equal (fan_in, fan_out, dtype), whatever their kernels' ranks.

    Args:
        views: The matrix view of each kernel.
        dtypes: The dtype of each kernel's momentum.
        batched: True to stack all, False none, `"auto"` those that gain: all on
            accelerators, the small ones on CPUs.

    Returns:
        Lists of positions, in the order of their first member.

    Example:
        >>> square = MatrixView.of_last_axes((8, 8))
        >>> stacks([square, square], ["float32", "float32"], True)
        [[0, 1]]
    """
    groups: dict[tuple, list[int]] = {}
    for position, (view, dtype) in enumerate(zip(views, dtypes, strict=True)):
        alone = not _worth_stacking(view, batched)
        key = (view.fan_in, view.fan_out, dtype, position if alone else None)
        groups.setdefault(key, []).append(position)
    return list(groups.values())


def _worth_stacking(view: MatrixView, batched: Batched) -> bool:
    if batched == "auto":
        small = view.fan_in * view.fan_out <= LARGEST_STACKED_ON_CPU
        return small or runs_on_accelerator()
    return bool(batched)
