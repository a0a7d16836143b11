"""Functions of one process take turns, so that what slows the machine slows all."""

import statistics
import time
from collections.abc import Callable, Mapping

Times = dict[str, list[float]]

# A first call this much longer than a turn is not repeated to see how long calls are.
WARM = 4


def seconds_of(function: Callable[[], object]) -> float:
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def interleaved(
    functions: Mapping[str, Callable[[], object]], rounds: int, turn: float
) -> Times:
    """Return seconds per call of every function in every round.

    In each round every function has a turn of one call or more, and another begins.

    Args:
        functions: By name; each returns when its work is done.
        rounds: Number of rounds, 1 or more.
        turn: Seconds that a turn should take; it is at least one call.
    """
    names, calls = list(functions), {}
    for name, function in functions.items():
        first = seconds_of(function)  # with whatever it prepares
        seconds = first if first > WARM * turn else seconds_of(function)
        calls[name] = max(1, round(turn / max(seconds, 1e-6)))
    times: Times = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            turns = [seconds_of(functions[name]) for _ in range(calls[name])]
            times[name].append(statistics.median(turns))
    return times


def median_ratio(times: Times, name: str, base: str) -> float:
    """Return the median over rounds of one function's time over another's."""
    pairs = zip(times[name], times[base], strict=True)
    return statistics.median(one / other for one, other in pairs)
