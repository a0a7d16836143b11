"""Where do the exported graphs run, and how fast is ONNX Runtime?

    python examples/benchmarks/onnx_runtimes.py
    python examples/benchmarks/onnx_runtimes.py --rounds 15 --json runtimes.json
    python examples/benchmarks/onnx_runtimes.py --rounds 0

Loads static, batched and dynamic graphs and a whole step, in float32 and float64, in
the first and last operator versions, on every runtime that is installed, each in a
process of its own, and compares with the SVD. Then times Newton-Schulz on ONNX Runtime
against every backend of Keras, which take turns; on CUDA too, where there is a device.
What is missing is shown as not measured. The exit code is 1 if a float32 graph is
refused or wrong anywhere.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processes import missing, run_worker
from rich.console import Console
from rich.table import Table
from runtime_cells import MODULES, RUNTIMES, TOLERANCES, write_graphs
from turns import FRAMEWORKS, medians

NOT_MEASURED = "not measured"
SHAPES = ((768, 768), (768, 3072), (12, 768, 768))
# What ONNX Runtime may take of the fastest backend's time.
DEMANDED = 1.05


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, or leave with a message."""
    parser = argparse.ArgumentParser(
        description="Run exported graphs on every runtime, and time ONNX Runtime.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=9, help="0 times nothing")
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    options = parser.parse_args(arguments)
    if options.rounds < 0:
        parser.error(f"--rounds must be at least 0; got {options.rounds}.")
    return options


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
        lacking.add("onnxruntime cuda")
    cells: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as room:
        folder = Path(room)
        names = write_graphs(folder)
        for runtime in RUNTIMES:
            cells[runtime] = dict.fromkeys(names, NOT_MEASURED)
            if runtime not in lacking:
                device = "auto" if runtime.endswith("cuda") else "cpu"
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
    """Return a row per graph and a column per runtime."""
    table = Table(title="largest error of an entry, by SVD", title_justify="left")
    for part in ("graph", "dtype", "opset"):
        table.add_column(part)
    for runtime in cells:
        table.add_column(runtime, justify="right")
    for name in next(iter(cells.values())):
        shown = (_shown(name, column[name]) for column in cells.values())
        table.add_row(*name.replace("opset ", "").split(", "), *shown)
    return table


def time_table(times: dict[str, dict[str, float]], device: str) -> Table:
    """Return milliseconds by shape and framework, and what was demanded."""
    title = f"milliseconds on {device}: jordan, float32, medians of alternating turns"
    table = Table(title=title, title_justify="left")
    table.add_column("shape")
    for name in next(iter(times.values())):
        table.add_column(name, justify="right")
    table.add_column("to fastest", justify="right")
    for shape, row in times.items():
        ratio = ratio_to_fastest(row)
        color = "green" if ratio <= DEMANDED else "red"
        entries = (f"{1e3 * seconds:.1f}" for seconds in row.values())
        table.add_row(shape, *entries, f"[{color}]{ratio:.2f}[/]")
    return table


def ratio_to_fastest(row: dict[str, float]) -> float:
    """Return ONNX Runtime's time as a multiple of the fastest other's."""
    others = [seconds for name, seconds in row.items() if name != "onnxruntime"]
    return row["onnxruntime"] / min(others)


def run_times(device: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return seconds by shape and framework; nothing if there is nothing to compare."""
    modules = {name: name for name in FRAMEWORKS}
    lacking = missing(modules, FRAMEWORKS)
    names = [name for name in FRAMEWORKS if name not in lacking]
    if device == "cuda":
        # Wheels of TensorFlow, and NumPy, have no CUDA of their own.
        names = [name for name in names if name in ("onnxruntime", "jax", "torch")]
    if "onnxruntime" not in names or len(names) < 2:
        return {}
    return {
        "x".join(map(str, shape)): medians(names, shape, rounds, device)
        for shape in SHAPES
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, time, print, write; return the exit code."""
    options = parsed(arguments)
    console = Console()
    cells = run_cells()
    console.print(cell_table(cells))
    found = problems(cells)
    for problem in found:
        console.print(f"[red]{problem}[/]")
    times: dict[str, dict[str, dict[str, float]]] = {}
    for device in ("cpu", "cuda"):
        if options.rounds and (device == "cpu" or has_cuda()):
            times[device] = run_times(device, options.rounds)
        if times.get(device):
            console.print(time_table(times[device], device))
        else:
            console.print(f"Times on {device}: {NOT_MEASURED}.")
    if options.json:
        content = {"errors": cells, "seconds": times, "demanded": DEMANDED}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if found else 0


def _shown(name: str, cell: Any) -> str:
    if cell == NOT_MEASURED:
        return f"[dim]{cell}[/]"
    if not isinstance(cell, float):
        return "[red]refused[/]"
    return f"[{'green' if is_right(name, cell) else 'yellow'}]{cell:.0e}[/]"


if __name__ == "__main__":
    raise SystemExit(main())
