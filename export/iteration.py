"""What a graph iterates: checked, as a formula, and as part of its specification."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from keras_muon.admissible import Triple
from keras_muon.export.arguments import (
    GraphShape,
    checked_dtype,
    checked_emulation,
    checked_side,
    checked_triples,
)
from keras_muon.leading import (
    BASIS_TRIPLES,
    GROUP,
    MIXTURES,
    VALUE_TRIPLES,
)
from keras_muon.messages import unknown_name
from keras_muon.plan import Leading, Plan, plan_for
from keras_muon.schedules import Schedule, get_schedule

# "standard": the schedule's triples, each with a Gram matrix of its own.
# "planned": what the optimizer does, see `keras_muon.plan`.
METHODS = ("standard", "planned")

FORMULA = """\
X <- U / |U|_F, then for every triple (a, b, c): A = X X^T, X <- a X + (b A + c A A) X.
U is `update`, of shape {shape}; the last X is `polar_factor`.
Schedule {name}, in {dtype}: {triples}."""

COMPRESSED_FORMULA = """\
X <- U / |U|_F.  Z = X (S X)^T, Y = N(Z; B), T = Y^T X,
t = sqrt(max(1 - |T|_F^2, {others} * {smallest_rest}^2) / {others}), \
X <- X + Y (t N(T; V) - T).
X <- X / |X|_8, then for every triple (a, b, c): A = X X^T, X <- a X + (b A + c A A) X.
This compresses {count} leading singular values. S, a constant of signs, makes \
{mixtures} sums of each {group} rows. |X|_8 is the Schatten norm, |A A|_F^(1/4). N(Z; B)
is Z / |Z|_F after a step per triple of B. If U has more rows than columns, all of this
holds for its transpose.
U is `update`, of shape {shape}; the last X is `polar_factor`.
Schedule {name}, in {dtype}: {triples}. B: {basis}. V: {values}."""


@dataclasses.dataclass(frozen=True)
class Iteration:
    """The way from an update to its polar factor in a graph.

    Args:
        shape: The extents of the update.
        schedule: The schedule.
        steps: Number of steps; None leaves it to the schedule.
        method: One of `METHODS`.
        side: `"in"`, `"out"` or `"auto"`.
        dtype: Dtype of inputs and outputs.
        emulate: Narrower dtype to which products are rounded, or None.
    """

    shape: GraphShape
    schedule: Schedule
    steps: int | None
    method: str
    side: str
    dtype: str
    emulate: str | None

    @classmethod
    def checked(
        cls,
        shape: GraphShape,
        schedule: str | dict | Schedule,
        steps: int | None,
        *,
        method: str,
        dtype: str,
        emulate: str | None,
        side: str = "auto",
    ) -> "Iteration":
        """Return an iteration of arguments as users give them, or refuse them.

        Raises:
            ValueError: If an argument is unknown, or `"planned"` is asked for where
                extents are open or a side is chosen.
        """
        schedule, side = get_schedule(schedule), checked_side(side)
        dtype = checked_dtype(dtype)
        emulate = checked_emulation(emulate, dtype)
        triples = checked_triples(schedule, steps)
        _check_method(method, shape, side)
        # A plan may take fewer steps where their number is left open.
        if steps is not None or method == "standard":
            steps = len(triples)
        return cls(shape, schedule, steps, method, side, dtype, emulate)

    @classmethod
    def of(cls, specification: Mapping[str, Any]) -> "Iteration":
        """Return the iteration of a graph's specification."""
        fan_in, fan_out = specification["shape"]
        return cls.checked(
            GraphShape(specification.get("batch"), fan_in, fan_out),
            specification["schedule"],
            specification["steps"],
            method=specification.get("method", "standard"),
            side=specification.get("side", "auto"),
            dtype=specification["dtype"],
            emulate=specification.get("emulate"),
        )

    @property
    def compute_dtype(self) -> str:
        """Dtype of the products, which may be an emulated one."""
        return self.emulate or self.dtype

    @property
    def plan(self) -> Plan | None:
        """The optimizer's plan for one matrix; None for the method "standard"."""
        if self.method == "standard":
            return None
        fan_in, fan_out = int(self.shape.fan_in), int(self.shape.fan_out)
        return plan_for(
            fan_in, fan_out, self.schedule, self.compute_dtype, steps=self.steps
        )

    @property
    def triples(self) -> tuple[Triple, ...]:
        """One (a, b, c) per step."""
        plan = self.plan
        if plan is None:
            return self.schedule.take(self.steps)
        return tuple(triple for segment in plan.segments for triple in segment)

    @property
    def formula(self) -> str:
        """The formula of the iteration with its numbers, for `doc_string`."""
        plan = self.plan
        about = {
            "shape": " x ".join(map(str, self.shape.extents)),
            "name": self.schedule.name,
            "dtype": self.compute_dtype,
            "triples": _shown(self.triples),
        }
        if plan is None or plan.leading is None:
            return FORMULA.format(**about)
        return COMPRESSED_FORMULA.format(**about, **_about(plan.leading))

    @property
    def specification(self) -> dict[str, Any]:
        """What `of` needs, as plain values."""
        return {
            "shape": [self.shape.fan_in, self.shape.fan_out],
            "batch": self.shape.batch,
            "schedule": self.schedule.to_json(),
            "steps": self.steps,
            "method": self.method,
            "dtype": self.dtype,
            "emulate": self.emulate,
        }


def _check_method(method: object, shape: GraphShape, side: str) -> None:
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if method == "standard":
        return
    if shape.is_symbolic:
        raise ValueError(
            "`method` 'planned' depends on the extents of a matrix; received "
            f"{(shape.fan_in, shape.fan_out)}. Pass whole numbers, or "
            "method='standard'. The batch may be a name."
        )
    if side != "auto":
        raise ValueError(
            f"`method` 'planned' takes the short side; received side={side!r}. Leave "
            "`side` out, or pass method='standard'."
        )


def _about(leading: Leading) -> dict[str, Any]:
    return {
        "count": leading.count,
        "others": leading.others,
        "smallest_rest": leading.smallest_rest,
        "mixtures": MIXTURES,
        "group": GROUP,
        "basis": _shown(BASIS_TRIPLES),
        "values": _shown(VALUE_TRIPLES),
    }


def _shown(triples: Sequence[Triple]) -> str:
    return ", ".join(map(str, triples))
