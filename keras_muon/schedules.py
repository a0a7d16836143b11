"""Schedules: the odd polynomials that a Newton-Schulz iteration applies.

One step maps every singular value s of its input to a*s + b*s**3 + c*s**5; a
schedule is the list of triples (a, b, c), with the rule for what follows the last
one, the safety factor and the source. All of it is plain Python.
"""

import dataclasses
import math
import types
from collections.abc import Mapping

from keras_muon.admissible import Triple, check_range
from keras_muon.messages import require_choice, require_count, require_number


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The triples of a Newton-Schulz iteration, as one value.

    A schedule is checked when it is made: on singular values in (0, 1.005] no step
    may return zero, a negative value, or more than 2. A schedule that fails would
    reverse the update's direction, or blow up.

    Args:
        coefficients: One triple (a, b, c) per step, dimensionless.
        steps: How many steps to take if the caller does not say. Defaults to one
            per triple.
        tail: What follows the last triple: `"repeat"` it, or `"refuse"`.
        safety: Every triple but the last becomes
            (a / safety, b / safety**3, c / safety**5), as if its input had been
            divided by this factor. 1 changes nothing.
        name: A short name for tables and messages.
        source: Where the numbers come from.
        compressed: The triples that take the place of the others on large matrices,
            after their leading singular values were compressed (see
            `keras_muon.compression`). Empty if that is never done.

    Raises:
        ValueError: If the numbers are unusable, in the sense above.

    Example:
        >>> Schedule(coefficients=((1.5, -0.5, 0.0),), steps=8, tail="repeat").steps
        8

    Source: the safety rule is the one of Amsel et al. 2025, arXiv:2505.16932.
    """

    coefficients: tuple[Triple, ...]
    steps: int = 0
    tail: str = "refuse"
    safety: float = 1.0
    name: str = "custom"
    source: str = ""
    compressed: tuple[Triple, ...] = ()

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the dataclass is frozen for everyone else
        triples = _checked_triples(self.coefficients, "coefficients")
        set_field(self, "coefficients", triples)
        steps = self.steps if self.steps != 0 else len(self.coefficients)
        set_field(self, "steps", require_count("steps", steps))
        safety = require_number("safety", self.safety, minimum=1.0, below=2.0)
        set_field(self, "safety", safety)
        require_choice("tail", self.tail, ["repeat", "refuse"])
        compressed = self.compressed
        if not isinstance(compressed, (list, tuple)) or compressed:
            compressed = _checked_triples(compressed, "compressed")
            check_range(self.name, compressed)
        set_field(self, "compressed", tuple(compressed))
        check_range(self.name, self.take(self.steps))
        if len(self.coefficients) > self.steps:
            check_range(self.name, self.take(len(self.coefficients)))

    def take(
        self, steps: int | None = None, *, argument: str = "steps"
    ) -> tuple[Triple, ...]:
        """Return the triples of the first `steps` steps, safety applied.

        Args:
            steps: Number of steps, 1 or more. None takes the schedule's own number.
            argument: What the caller's user calls this number, for messages.

        Returns:
            A tuple of `steps` triples.

        Raises:
            ValueError: If the schedule ends before and its tail is `"refuse"`.

        Example:
            >>> SCHEDULES["jordan"].take(2)
            ((3.4445, -4.775, 2.0315), (3.4445, -4.775, 2.0315))
        """
        count = self.steps if steps is None else require_count(argument, steps)
        missing = count - len(self.coefficients)
        if missing > 0 and self.tail == "refuse":
            raise ValueError(
                f"Schedule {self.name!r} has {len(self.coefficients)} steps; "
                f"received `{argument}`: {count}. Ask for fewer, or choose a schedule "
                "whose tail repeats: 'jordan', 'polar_express', or your own with "
                "tail='repeat'."
            )
        s = self.safety
        *head, last = self.coefficients
        scaled = [(a / s, b / s**3, c / s**5) for a, b, c in head]
        triples = (*scaled, *[last] * max(missing + 1, 1))[:count]
        if count > self.steps and missing > 0:
            check_range(self.name, triples)
        return triples

    def to_json(self) -> dict[str, object]:
        """Return the schedule as a dictionary of plain values."""
        values = dataclasses.asdict(self)
        rows = {"coefficients": self.coefficients, "compressed": self.compressed}
        return values | {name: [list(row) for row in rows[name]] for name in rows}

    @classmethod
    def from_json(cls, values: dict) -> "Schedule":
        """Return the schedule that `to_json` wrote."""
        try:
            return cls(**values)
        except TypeError:
            fields = [field.name for field in dataclasses.fields(cls)]
            raise ValueError(
                f"`schedule` as a dictionary must have the fields {fields}, of which "
                f"coefficients is required; received {values!r}."
            ) from None


def get_schedule(schedule: "str | dict | Schedule") -> Schedule:
    """Return a schedule from its name, its JSON form, or itself.

    Args:
        schedule: A name in `SCHEDULES`, a `Schedule`, or what `to_json` returned.

    Returns:
        The schedule.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> get_schedule("you").steps
        5
    """
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, dict):
        return Schedule.from_json(schedule)
    way_out = "For your own, pass Schedule(coefficients=((a, b, c), ...))."
    return SCHEDULES[require_choice("schedule", schedule, SCHEDULES, way_out)]


def _checked_triples(given: object, name: str) -> tuple[Triple, ...]:
    try:
        triples = tuple(tuple(float(x) for x in row) for row in given)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        triples = ()
    if not triples or any(len(row) != 3 for row in triples):
        raise ValueError(
            f"`{name}` must be a non-empty sequence of triples (a, b, c) of "
            f"numbers; received {given!r}. For a cubic step pass c=0."
        )
    if not all(math.isfinite(x) for row in triples for x in row):
        raise ValueError(f"`{name}` must be finite; received {given!r}.")
    return triples  # type: ignore[return-value]


_YOU: tuple[Triple, ...] = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)

_TABLE = (
    Schedule(
        name="auto",
        coefficients=_YOU,
        compressed=(
            (7.755565002621945, -21.647041193095475, 15.558772234759992),
            (3.378544575955787, -2.48290675994058, 0.49280567303169087),
            (2.364934031433053, -1.6953726953574988, 0.4065195148193027),
        ),
        source="`you`; on large matrices minimax_schedule(0.015, 3) after compression",
    ),
    Schedule(
        name="jordan",
        coefficients=((3.4445, -4.7750, 2.0315),),
        steps=5,
        tail="repeat",
        source="Jordan et al. 2024, kellerjordan.github.io/posts/muon",
    ),
    Schedule(
        name="you",
        coefficients=_YOU,
        source="You Jiacheng 2025, x.com/YouJiacheng/status/1905861218138804534",
    ),
    Schedule(
        name="polar_express",
        coefficients=(
            (8.28721201814563, -23.595886519098837, 17.300387312530933),
            (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
            (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
            (3.3184196573706015, -2.488488024314874, 0.51004894012372),
            (2.300652019954817, -1.6689039845749475, 0.4188073119525673),
            (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
            (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
            (1.875, -1.25, 0.375),
        ),
        steps=5,
        tail="repeat",
        safety=1.01,
        source="Amsel et al. 2025, arXiv:2505.16932, algorithm 1",
    ),
    Schedule(
        name="cubic",
        coefficients=((1.5, -0.5, 0.0),),
        steps=10,
        tail="repeat",
        source="Higham 2008, Functions of Matrices, equation (8.20)",
    ),
    Schedule(
        name="quintic",
        coefficients=((1.875, -1.25, 0.375),),
        steps=10,
        tail="repeat",
        source="Higham 2008, Functions of Matrices, section 8.3 (Pade family)",
    ),
)

# Read-only: a schedule of one's own is passed, not added.
SCHEDULES: Mapping[str, Schedule] = types.MappingProxyType(
    {schedule.name: schedule for schedule in _TABLE}
)
