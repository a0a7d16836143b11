"""Where do the exported graphs run, and how fast is ONNX Runtime?

    python examples/benchmarks/onnx_runtimes.py
    python examples/benchmarks/onnx_runtimes.py --rounds 15 --json runtimes.json
    python examples/benchmarks/onnx_runtimes.py --rounds 0

Loads static, batched and dynamic graphs and a whole step, in float32 and float64, in
the first and last operator versions, on every runtime that is installed, each in a
process of its own, and compares with the SVD. Then times Newton-Schulz on ONNX Runtime
against NumPy and every backend of Keras, which take turns: five steps of `jordan`, and
`auto` as the optimizer plans it. A turn is at least three calls, of which the median
counts. On the CPU, torch and the graphs of ONNX Runtime compute symmetric products of
single matrices in panels, as the optimizer does on torch. On CUDA, where there is a
device, ONNX Runtime takes turns with JAX and PyTorch. What is missing is shown as not
measured. The exit code is 1 if a float32 graph is refused or wrong anywhere.
"""

import argparse
import json
from collections.abc import Sequence

from argument_types import file_to_write, whole_number
from rich.console import Console
from runtime_report import (
    DEMANDED,
    NOT_MEASURED,
    cell_table,
    has_cuda,
    problems,
    run_cells,
    run_times,
    time_table,
)
from turns import Times


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options, or leave with a message."""
    parser = argparse.ArgumentParser(
        description="Run exported graphs on every runtime, and time ONNX Runtime.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=whole_number(0), default=9, help="0 times nothing"
    )
    parser.add_argument("--json", type=file_to_write, help="where to write all numbers")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, time, print, write; return the exit code."""
    options = parsed(arguments)
    console = Console()
    cells = run_cells()
    console.print(cell_table(cells))
    for runtime, column in cells.items():
        if set(column.values()) == {NOT_MEASURED}:
            console.print(f"{runtime}: {NOT_MEASURED}, it is not here.")
    found = problems(cells)
    for problem in found:
        console.print(f"[red]{problem}[/]")
    times: dict[str, Times] = {}
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


if __name__ == "__main__":
    raise SystemExit(main())
