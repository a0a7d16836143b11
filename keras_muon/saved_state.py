"""The optimizer's state in a file: by name, so that it survives changed routes."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_muon.routing import listed, numbered

Variable = Any
Store = Any


class _Saved(NamedTuple):
    name: str
    value: Any


def write_state(variables: Sequence[Variable], store: Store) -> None:
    """Write each variable under its position and its name.

    Args:
        variables: The optimizer's variables.
        store: A mapping from strings to arrays, of the file.
    """
    for position, (name, variable) in enumerate(
        zip(_names(variables), variables, strict=True)
    ):
        store[f"{position:05d} {name}"] = np.asarray(variable.numpy())


def read_state(
    optimizer_name: str, variables: Sequence[Variable], store: Store
) -> None:
    """Restore what the file has for these variables, and say what it has not.

    Names decide. If they differ only as those of a rebuilt or loaded model do, by outer
    names and the numbers of automatic ones, position decides.

    Args:
        optimizer_name: For the messages.
        variables: The optimizer's variables.
        store: What `write_state` wrote.

    Warns:
        UserWarning: With the names of variables that keep their present value, and of
            saved ones that found no place.
    """
    saved = _read(store)
    if saved is None:
        warnings.warn(
            f"Optimizer {optimizer_name!r}: the file holds the state of another "
            "optimizer; nothing is restored, the state stays as it is.",
            UserWarning,
            stacklevel=3,
        )
        return
    wanted = dict(zip(_names(variables), variables, strict=True))
    found = {entry.name: entry.value for entry in saved}
    if found.keys() <= COMMON:
        _restart(wanted, found)
        return
    if wanted.keys() != found.keys() and _only_renamed(wanted, saved):
        found = dict(zip(wanted, (entry.value for entry in saved), strict=True))
    missing = []
    for name, variable in wanted.items():
        value = found.pop(name, None)
        if value is None or tuple(value.shape) != tuple(variable.shape):
            missing.append(name)
        else:
            variable.assign(value)
    _warn_of_the_rest(optimizer_name, missing, list(found))


def _restart(wanted: Mapping[str, Variable], found: Mapping[str, np.ndarray]) -> None:
    """Bring back the state before the first step, which is zeros but for `COMMON`."""
    for name, variable in wanted.items():
        if name in found:
            variable.assign(found[name])
        elif name not in COMMON:
            variable.assign(np.zeros(variable.shape))


def _names(variables: Sequence[Variable]) -> list[str]:
    """Names, with a number where several variables have the same."""
    keys = numbered([variable.name for variable in variables])
    return [f"{name} {count}" if count else name for name, count in keys]


def _read(store: Store) -> list[_Saved] | None:
    """Return the entries in their order, or None if we did not write them."""
    entries = [(*key.partition(" "), key) for key in sorted(store.keys())]
    if not all(position.isdigit() and name for position, _, name, _ in entries):
        return None
    return [_Saved(name, np.asarray(store[key])) for _, _, name, key in entries]


# What every Keras optimizer has, whatever model it belongs to. A file with nothing else
# was saved before the optimizer was built.
COMMON = {"iteration", "learning_rate"}


def _only_renamed(wanted: Mapping[str, Variable], saved: Sequence[_Saved]) -> bool:
    if len(wanted) != len(saved):
        return False
    for (name, variable), entry in zip(wanted.items(), saved, strict=True):
        here, there = _uncounted(name), _uncounted(entry.name)
        if tuple(variable.shape) != tuple(entry.value.shape):
            return False
        if not (here.endswith(there) or there.endswith(here)):
            return False
    return True


def _uncounted(name: str) -> str:
    return re.sub(r"[_ ]\d+(?=_|$)", "", name)


def _warn_of_the_rest(optimizer_name: str, missing: list, unused: list) -> None:
    if not missing and not unused:
        return
    parts = []
    if missing:
        parts.append(f"not in the file, so left as they are: {listed(missing, 8)}")
    if unused:
        parts.append(f"in the file, but without a place here: {listed(unused, 8)}")
    hint = ""
    if set(missing) <= COMMON and set(unused) - COMMON:
        hint = (
            " If the optimizer is not built yet, call "
            "model.optimizer.build(model.trainable_variables) before loading."
        )
    warnings.warn(
        f"State of optimizer {optimizer_name!r} is restored in part; "
        + "; ".join(parts)
        + f".{hint}",
        UserWarning,
        stacklevel=4,
    )
