"""What a graph iterates: checked, as a formula, and as part of its specification."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_muon.admissible import Triple
from keras_muon.export.arguments import (
    MOST_PANELS,
    SMALLEST_PANELLED,
    GraphShape,
    checked_dtype,
    checked_emulation,
    checked_side,
    checked_triples,
)
from keras_muon.export.formulas import PANELLED, formula_of
from keras_muon.messages import require_choice, require_count
from keras_muon.plan import Plan, Side, short_side
from keras_muon.plan_choice import plan_for
from keras_muon.schedules import Schedule, get_schedule
from keras_muon.split_choice import split_segments

# "standard": the schedule's triples, each with a Gram matrix of its own.
# "planned": what the optimizer does, see `keras_muon.plan_choice`.
METHODS = ("standard", "planned")


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
        panels: Number of panels of a large symmetric product.
    """

    shape: GraphShape
    schedule: Schedule
    steps: int | None
    method: str
    side: str
    dtype: str
    emulate: str | None
    panels: int = 1

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
        panels: int = 1,
    ) -> "Iteration":
        """Return an iteration of arguments as users give them, or refuse them.

        Raises:
            ValueError: If an argument is unknown, if `"planned"` is asked for where
                extents are open or a side is chosen, or panels for stacks or open
                extents.
        """
        schedule, side = get_schedule(schedule), checked_side(side)
        dtype = checked_dtype(dtype)
        emulate = checked_emulation(emulate, dtype)
        triples = checked_triples(schedule, steps)
        _check_method(method, shape, side)
        panels = _checked_panels(panels, shape)
        # A plan may take fewer steps where their number is left open.
        if steps is not None or method == "standard":
            steps = len(triples)
        return cls(shape, schedule, steps, method, side, dtype, emulate, panels)

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
            panels=specification.get("panels", 1),
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
        plan = plan_for(
            fan_in, fan_out, self.schedule, self.compute_dtype, steps=self.steps
        )
        large = min(fan_in, fan_out) >= SMALLEST_PANELLED
        return dataclasses.replace(plan, panels=self.panels if large else 1)

    @property
    def triples(self) -> tuple[Triple, ...]:
        """One (a, b, c) per step."""
        plan = self.plan
        if plan is None:
            return self.schedule.take(self.steps)
        return tuple(triple for segment in plan.segments for triple in segment)

    @property
    def gram_side(self) -> Side:
        """The side of Gram matrices; "auto" needs extents that are known."""
        if self.side != "auto":
            return "in" if self.side == "in" else "out"
        return short_side(int(self.shape.fan_in), int(self.shape.fan_out))

    @property
    def split(self) -> int:
        """In how many first steps of "standard" the product with X is split."""
        if self.method != "standard" or self.shape.is_symbolic:
            return 0
        shape, segments = self.shape, tuple((triple,) for triple in self.triples)
        extent = int(shape.fan_in if self.gram_side == "in" else shape.fan_out)
        return split_segments(extent, self.schedule, self.compute_dtype, segments)

    @property
    def formula(self) -> str:
        """The formula of the iteration with its numbers, for `doc_string`."""
        plan = self.plan
        formula = formula_of(
            self.shape.extents,
            self.schedule.name,
            self.compute_dtype,
            self.triples,
            plan.leading if plan else None,
            self.split,
        )
        return formula if self.panels == 1 else f"{formula}\n{PANELLED}"

    @property
    def specification(self) -> dict[str, Any]:
        """What `of` needs, as plain values."""
        # Left out where products are whole, as before there were panels.
        panels = {} if self.panels == 1 else {"panels": self.panels}
        return panels | {
            "shape": [self.shape.fan_in, self.shape.fan_out],
            "batch": self.shape.batch,
            "schedule": self.schedule.to_json(),
            "steps": self.steps,
            "method": self.method,
            "dtype": self.dtype,
            "emulate": self.emulate,
        }


def _check_method(method: object, shape: GraphShape, side: str) -> None:
    if require_choice("method", method, METHODS) == "standard":
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


def _checked_panels(panels: object, shape: GraphShape) -> int:
    count = require_count("panels", panels)
    if count > MOST_PANELS:
        raise ValueError(
            f"`panels` must be at most {MOST_PANELS}; received {count}. More gain "
            "nothing: 1 computes symmetric products whole, 2 three quarters of them."
        )
    if count == 1:
        return count
    if shape.batch is not None:
        raise ValueError(
            f"`panels` {count} is for a single matrix; received batch={shape.batch!r}. "
            "Leave `batch` out, or pass panels=1."
        )
    if shape.is_symbolic:
        raise ValueError(
            f"`panels` {count} depends on the extents of a matrix; received "
            f"{(shape.fan_in, shape.fan_out)}. Pass whole numbers, or panels=1."
        )
    return count
