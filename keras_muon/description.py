"""The table that `Muon.describe()` prints."""

import collections
import dataclasses
import math
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_muon.plan import Plan
from keras_muon.plan_choice import is_small
from keras_muon.routing import Route
from keras_muon.scaling import Scaling

# Wide enough for the paths of nested models where the output is no terminal.
WIDTH_OF_FILES = 132


def print_description(
    title: str,
    routes: Sequence[Route],
    scaling: Scaling,
    state_bytes: int,
    adamw_bytes: int,
    plans: Sequence[tuple[int, Plan]] = (),
    dtype_reason: str = "",
    print_fn: Callable[[str], object] | None = None,
) -> None:
    """Print one row per variable and the totals.

    Args:
        title: Name of the optimizer and its settings.
        routes: The routes, in order.
        scaling: From (fan_in, fan_out) to the step factor.
        state_bytes: Bytes of momentum and moments that the optimizer keeps.
        adamw_bytes: Bytes that AdamW would keep for the same variables.
        plans: Per iteration how many matrices it is for, and its plan.
        dtype_reason: Why plans have their dtypes.
        print_fn: Called with the whole text. None prints to standard output.
    """
    # Text, not str: rich would read brackets in names and patterns as markup.
    table = Table(title=Text(title), title_justify="left", caption_justify="left")
    for name in ("variable", "shape"):
        table.add_column(name, overflow="fold")
    for name in ("in x out", "batch"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("rule", no_wrap=True)
    table.add_column("reason", overflow="fold")
    table.add_column("factor", justify="right", no_wrap=True)
    for route in routes:
        style = "green" if route.rule == "muon" else None
        table.add_row(*map(Text, _row(route, scaling)), style=style)
    table.caption = Text(_totals(routes, state_bytes, adamw_bytes))
    tables = [table, _plan_table(plans, dtype_reason)] if plans else [table]
    if print_fn is None:
        _console().print(*tables, sep="")
        return
    console = Console(width=WIDTH_OF_FILES, color_system=None)
    with console.capture() as capture:
        console.print(*tables, sep="")
    print_fn(capture.get())


def _plan_table(plans: Sequence[tuple[int, Plan]], dtype_reason: str) -> Table:
    """Return one row per kind of plan: for how many matrices, how, at what cost.

    That is operations, and bytes to and from memory, of the products.
    """
    table = Table(
        title=Text("Newton-Schulz"),
        title_justify="left",
        caption=Text(dtype_reason),
        caption_justify="left",
    )
    table.add_column("in x out", justify="right", no_wrap=True)
    table.add_column("matrices\nin stacks", justify="right", overflow="fold")
    table.add_column("Gram matrices", overflow="fold")
    table.add_column("dtype", no_wrap=True)
    for name in ("GFLOP", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reason", overflow="fold")
    # Small matrices are with transposed ones: the same cost, however they are laid.
    first: dict[Plan, Plan] = {}
    sizes: dict[Plan, list[int]] = collections.defaultdict(list)
    for matrices, plan in plans:
        sizes[first.setdefault(_laid(plan), plan)].append(matrices)
    for plan, counts in sizes.items():
        table.add_row(*map(Text, _plan_row(plan, counts)))
    return table


def _plan_row(plan: Plan, counts: Sequence[int]) -> tuple[str, ...]:
    matrices = sum(counts)
    panels = f", in {plan.panels} panels" if plan.panels > 1 else ""
    return (
        f"{plan.fan_in} x {plan.fan_out}",
        _in_stacks(plan, counts),
        f"{len(plan.segments)} for {plan.steps} steps{panels}",
        plan.compute_dtype,
        _short(matrices * plan.flops / 1e9),
        _short(matrices * plan.bytes_moved / 1e6),
        plan.reason,
    )


def _in_stacks(plan: Plan, counts: Sequence[int]) -> str:
    """Return how many matrices there are, and in how many stacks or loops."""
    matrices, stacks = sum(counts), sum(count > 1 for count in counts)
    if not stacks:
        return str(matrices)
    together = "" if plan.loop == "apart" else f" in {stacks}"
    return f"{matrices}{together}{', in turn' if plan.loop != 'none' else ''}"


def _laid(plan: Plan) -> Plan:
    """Return the plan of matrices that are no higher than wide, if they are small."""
    if not is_small(plan.fan_in, plan.fan_out):
        return plan
    low, high = sorted((plan.fan_in, plan.fan_out))
    return dataclasses.replace(plan, fan_in=low, fan_out=high)


def _short(number: float) -> str:
    """Return three digits, or all before the point.

    Example:
        >>> _short(0.50332), _short(12345.6)
        ('0.503', '12,346')
    """
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def _row(route: Route, scaling: Scaling) -> tuple[str, ...]:
    shape = " x ".join(map(str, route.shape)) or "scalar"
    view = route.view
    if view is None or route.rule == "adamw":
        return (route.path, shape, "", "", "AdamW", route.reason, "")
    return (
        route.path,
        shape,
        f"{view.fan_in} x {view.fan_out}",
        str(view.batch),
        "Muon",
        route.reason,
        f"{scaling(view.fan_in, view.fan_out):.3g}",
    )


def _totals(routes: Sequence[Route], state_bytes: int, adamw_bytes: int) -> str:
    total = sum(math.prod(route.shape) for route in routes)
    muon = sum(math.prod(r.shape) for r in routes if r.rule == "muon")
    share = muon / total if total else 0.0
    lines = [
        f"Muon: {muon:,} of {total:,} parameters ({share:.1%})",
        f"State: {state_bytes:,} bytes; AdamW would keep {adamw_bytes:,}",
    ]
    unknown = sum(not route.certain for route in routes)
    if unknown:
        lines.append(f"Not proven, so left to AdamW: {unknown} variables")
    return "\n".join(lines)


def _console() -> Console:
    if sys.stdout.isatty():
        return Console()
    return Console(file=sys.stdout, width=WIDTH_OF_FILES)
