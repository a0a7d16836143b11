"""What ran where, and how fast: collected, judged, and shown as tables."""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from processes import missing, run_worker
from rich.table import Table
from runtime_cells import MODULES, RUNTIMES, TOLERANCES, write_graphs
from turns import FRAMEWORKS, Times, timed

NOT_MEASURED = "not measured"
# What is timed on CUDA, where there is a device.
ON_CUDA = ("onnxruntime", "jax", "torch")
SHAPES = ((768, 768), (768, 3072), (12, 768, 768))
# What ONNX Runtime may take of the fastest backend's time.
DEMANDED = 1.05


def has_cuda() -> bool:
    """Whether ONNX Runtime finds a device, not only a provider in its wheel."""
    if missing(MODULES, ["onnxruntime"]):
        return False
    from keras_muon.export.sessions import chosen_device

    return chosen_device("auto") == "cuda"


def run_cells() -> dict[str, dict[str, Any]]:
    """Return errors or refusals by runtime and graph; nothing for what is missing."""
    lacking = set(missing(MODULES, RUNTIMES))
    if not has_cuda():
        lacking.add("cuda")
    cells: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        names = write_graphs(folder)
        for runtime in RUNTIMES:
            cells[runtime] = dict.fromkeys(names, NOT_MEASURED)
            if runtime not in lacking:
                device = "auto" if runtime == "cuda" else "cpu"
                run_worker("runtime_cells.py", runtime, folder, device=device)
                answer = (folder / f"{runtime}.json").read_text(encoding="utf-8")
                cells[runtime] |= json.loads(answer)
    return cells


def is_right(name: str, cell: object) -> bool:
    """Whether a graph ran and is within the tolerance of its dtype."""
    tolerance = next(TOLERANCES[dtype] for dtype in TOLERANCES if dtype in name)
    return isinstance(cell, float) and cell <= tolerance


def problems(cells: dict[str, dict[str, Any]]) -> list[str]:
    """Return the float32 graphs that ran into an error or to a wrong result."""
    return [
        f"{runtime}: {name}: {cell}"
        for runtime, column in cells.items()
        for name, cell in column.items()
        if "float32" in name and cell != NOT_MEASURED and not is_right(name, cell)
    ]


def cell_table(cells: dict[str, dict[str, Any]]) -> Table:
    """Return a row per graph and a column per runtime; "-" is not measured."""
    title = "largest error of an entry against the SVD; cuda is ONNX Runtime's"
    table = Table(title=title, title_justify="left", pad_edge=False)
    for part in ("graph", "dtype", "opset"):
        table.add_column(part)
    for runtime in cells:
        table.add_column(runtime, justify="right")
    for name in next(iter(cells.values())):
        shown = (_shown(name, column[name]) for column in cells.values())
        table.add_row(*name.replace("opset ", "").split(", "), *shown)
    return table


def time_table(times: Times, device: str) -> Table:
    """Return median milliseconds, and ONNX Runtime's ratio to the fastest other.

    The ratio of medians is what was demanded. That of the best turns is closer to
    what a machine without other work would show.
    """
    title = f"milliseconds on {device}: float32, medians of alternating turns"
    table = Table(title=title, title_justify="left")
    table.add_column("schedule and shape")
    for name in next(iter(times.values())):
        table.add_column(name, justify="right")
    for column in ("ratio", "best"):
        table.add_column(column, justify="right")
    for shape, row in times.items():
        medians = {name: statistics.median(turns) for name, turns in row.items()}
        best = {name: min(turns) for name, turns in row.items()}
        entries = (f"{1e3 * seconds:.0f}" for seconds in medians.values())
        ratios = (_shown_ratio(ratio_to_fastest(kind)) for kind in (medians, best))
        table.add_row(shape, *entries, *ratios)
    return table


def ratio_to_fastest(row: dict[str, float]) -> float:
    """Return ONNX Runtime's time as a multiple of the fastest other's."""
    others = [seconds for name, seconds in row.items() if name != "onnxruntime"]
    return row["onnxruntime"] / min(others)


def run_times(device: str, rounds: int) -> Times:
    """Return seconds by work and framework; nothing if there is nothing to compare."""
    lacking = missing({name: name for name in FRAMEWORKS}, FRAMEWORKS)
    names = [name for name in FRAMEWORKS if name not in lacking]
    if device == "cuda":
        names = [name for name in names if name in ON_CUDA]
    if "onnxruntime" not in names or len(names) < 2:
        return {}
    return timed(names, SHAPES, rounds, device)


def _shown(name: str, cell: Any) -> str:
    if cell == NOT_MEASURED:
        return "-"
    if not isinstance(cell, float):
        return "[red]refused[/]"
    return f"[{'green' if is_right(name, cell) else 'yellow'}]{cell:.0e}[/]"


def _shown_ratio(ratio: float) -> str:
    return f"[{'green' if ratio <= DEMANDED else 'red'}]{ratio:.2f}[/]"
