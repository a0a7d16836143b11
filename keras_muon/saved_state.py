"""The optimizer's state in a file: by name, so that it survives changed routes."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_muon.renaming import paired
from keras_muon.routing import listed, unique_names

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
    for position, (name, variable) in enumerate(_by_name(variables).items()):
        store[f"{position:05d} {name}"] = np.asarray(variable.numpy())


def read_state(
    optimizer_name: str,
    variables: Sequence[Variable],
    store: Store,
    *,
    optional: Sequence[Variable] = (),
    together: Sequence[Sequence[Variable]] = (),
) -> list[Variable] | None:
    """Restore what the file has for these variables, and say what it has not.

    Names decide, as far as they tell: see `keras_muon.renaming`.

    Args:
        optimizer_name: For the messages.
        variables: The optimizer's variables.
        store: What `write_state` wrote.
        optional: What may be in the file beside them, without a warning if it is not.
        together: Variables of which all are restored, or none: moments of one rule.

    Returns:
        Those that the file has nothing for; None if it is no file of ours.

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
        return None
    wanted = _by_name([*variables, *optional])
    found = {entry.name: entry.value for entry in saved}
    if found.keys() <= COMMON:
        _restart(wanted, found)
        return []
    missing, unused = _restore(wanted, saved, together)
    silent = set(map(id, optional))
    named = [name for name, variable in missing.items() if id(variable) not in silent]
    _warn_of_the_rest(optimizer_name, named, unused)
    return list(missing.values())


def _by_name(variables: Sequence[Variable]) -> dict[str, Variable]:
    names = unique_names([variable.name for variable in variables])
    return dict(zip(names, variables, strict=True))


def _restore(
    wanted: Mapping[str, Variable],
    saved: Sequence[_Saved],
    together: Sequence[Sequence[Variable]],
) -> tuple[dict[str, Variable], list[str]]:
    """Assign what was saved; return what found no value, and what found no place."""
    here = [(name, tuple(variable.shape)) for name, variable in wanted.items()]
    there = [(entry.name, tuple(entry.value.shape)) for entry in saved]
    places = paired(here, there, "_")
    fitting = {
        id(variable): place
        for variable, place in zip(wanted.values(), places, strict=True)
        if place is not None and there[place][1] == tuple(variable.shape)
    }
    for group in together:
        if not all(id(variable) in fitting for variable in group):
            for variable in group:
                fitting.pop(id(variable), None)
    missing = {}
    for name, variable in wanted.items():
        if id(variable) in fitting:
            variable.assign(saved[fitting[id(variable)]].value)
        else:
            missing[name] = variable
    return missing, [entry.name for i, entry in enumerate(saved) if i not in places]


def _restart(wanted: Mapping[str, Variable], found: Mapping[str, np.ndarray]) -> None:
    """Bring back the state before the first step, which is zeros but for `COMMON`."""
    for name, variable in wanted.items():
        if name in found:
            variable.assign(found[name])
        elif name not in COMMON:
            variable.assign(np.zeros(variable.shape))


def _read(store: Store) -> list[_Saved] | None:
    """Return the entries in their order, or None if we did not write them."""
    entries = [(*key.partition(" "), key) for key in sorted(store.keys())]
    if not all(position.isdigit() and name for position, _, name, _ in entries):
        return None
    return [_Saved(name, np.asarray(store[key])) for _, _, name, key in entries]


# What every Keras optimizer has, whatever model it belongs to. A file with nothing else
# was saved before the optimizer was built.
COMMON = {"iteration", "learning_rate"}


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
