"""The command line's grammar. Nothing here imports onnx."""

import argparse
import re
from typing import Any, NoReturn

from keras_muon.export.cli_options import RULES, SHAPES, add_options
from keras_muon.version import __version__

PROGRAM = "keras-muon"
VERIFY = ("auto", "none", "reference", "onnxruntime")
# What float() reads, if it begins with a dash.
NEGATIVE_NUMBER = re.compile(
    r"-(([\d_]+\.?[\d_]*|\.[\d_]+)(e[+-]?\d+)?|inf(inity)?|nan)$", re.IGNORECASE
)


class UsageError(ValueError):
    """A command line that does not follow the grammar."""


class Parser(argparse.ArgumentParser):
    """A parser whose help begins with an example, and whose errors are one line.

    Args:
        example: A command that works.
        **settings: Of argparse.
    """

    def __init__(self, *, example: str, **settings: Any):
        super().__init__(**settings, allow_abbrev=False)
        self.example = example
        # Whole or with a point is what argparse knows; the rest it takes for options.
        self._negative_number_matcher = NEGATIVE_NUMBER

    def format_help(self) -> str:
        return f"{self.example}\n\n{super().format_help()}"

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            # argparse takes what begins with a dash for another option.
            flag = message.removeprefix("argument ").partition(":")[0]
            message += f", which begins with no dash, or is written {flag}=VALUE"
        raise UsageError(f"{message}. See {self.prog} --help.")


def parser() -> Parser:
    """Return the parser of the whole command line."""
    root = Parser(
        prog=PROGRAM,
        example=f"{PROGRAM} export newton-schulz polar.onnx --shape 64x256",
        description="Newton-Schulz and the optimizer's steps as checked ONNX files.",
        epilog="Exit codes: 0 good, 1 a check failed, 2 usage or bad input, 3 a "
        "missing extra.",
    )
    root.add_argument("--version", action="version", version=__version__)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_export(commands)
    _add_verify(commands)
    _add_inspect(commands)
    _add_run(commands)
    return root


def _add_export(commands: Any) -> None:
    example = f"{PROGRAM} export newton-schulz polar.onnx --shape 64x256"
    export = commands.add_parser(
        "export", example=example, help="write a graph, checked before it appears"
    )
    graphs = export.add_subparsers(dest="graph", required=True, metavar="GRAPH")
    iteration = graphs.add_parser(
        "newton-schulz",
        example=example,
        help="from an update to its polar factor",
    )
    add_options(iteration, ["newton_schulz"], SHAPES["newton_schulz"])
    _add_output_options(iteration)
    step = graphs.add_parser(
        "step",
        example=f"{PROGRAM} export step muon.onnx --rule muon --shape 64x256",
        help="one step of an optimizer on one tensor or stack",
    )
    step.add_argument("--rule", choices=list(RULES), required=True)
    add_options(step, list(RULES.values()), SHAPES["step"])
    _add_output_options(step)


def _add_output_options(graph: Parser) -> None:
    graph.add_argument(
        "out", type=_file_name, metavar="OUT.onnx", help="'-' is standard output"
    )
    graph.add_argument(
        "--test-data",
        action="store_true",
        help="also write OUT/, the model with inputs and outputs as in ONNX's tests",
    )
    graph.add_argument("--force", action="store_true", help="replace what is there")
    _add_verify_option(graph)
    _add_json_option(graph)


def _add_verify(commands: Any) -> None:
    verify = commands.add_parser(
        "verify",
        example=f"{PROGRAM} verify polar.onnx",
        help="tell whether a file is as it was exported, and right",
    )
    verify.add_argument("file", type=_file_name, metavar="FILE.onnx")
    _add_verify_option(verify)
    _add_json_option(verify)


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect",
        example=f"{PROGRAM} inspect polar.onnx",
        help="show inputs, outputs, operators, specification and cost",
    )
    inspect.add_argument("file", type=_file_name, metavar="FILE.onnx")
    inspect.add_argument(
        "--extent",
        action="append",
        default=[],
        metavar="NAME=N",
        help="value of an open extent, for the cost; may be repeated",
    )
    _add_json_option(inspect)


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        example=f"{PROGRAM} run polar.onnx update.npy --out factor.npy",
        help="run a graph on arrays of NumPy, on ONNX Runtime",
    )
    run.add_argument("file", type=_file_name, metavar="FILE.onnx")
    run.add_argument(
        "inputs",
        nargs="*",
        type=_file_name,
        metavar="IN",
        help="a .npy file, or a number for a scalar",
    )
    run.add_argument(
        "--out",
        nargs="+",
        type=_file_name,
        required=True,
        metavar="OUT.npy",
        help="one per output",
    )
    run.add_argument("--device", default="auto", help="auto|cpu|cuda (default: auto)")
    run.add_argument(
        "--tf32", action="store_true", help="let CUDA round factors to 10 bits"
    )
    run.add_argument("--threads", type=int, help="of a CPU (default: all)")
    run.add_argument("--force", action="store_true", help="replace what is there")


def _file_name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError(
            "must be the name of a file; received '', which is empty. Name a file"
        )
    return text


def _add_verify_option(command: Parser) -> None:
    command.add_argument(
        "--verify",
        choices=VERIFY,
        default="auto",
        help="who computes for the check of results (default: auto, all there are)",
    )


def _add_json_option(command: Parser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, not tables")
