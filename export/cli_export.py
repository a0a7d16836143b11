"""`keras-muon export`: write a graph beside its target, check it, then rename it."""

import argparse
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_muon.export.backend_test_data import write_test_data
from keras_muon.export.check_row import Check
from keras_muon.export.checks import check_list
from keras_muon.export.cli_options import ARGUMENTS, OPTIONS, RULES, flag_of
from keras_muon.export.cli_types import parsed_extent, parsed_schedule, parsed_shape
from keras_muon.export.finish import serialized
from keras_muon.export.report import print_checks, print_json
from keras_muon.export.specification import BUILDERS
from keras_muon.export.target import (
    check_target,
    check_test_folder,
    place,
    place_test_folder,
    staging,
)

PARSED: dict[str, Callable[[str], Any]] = {
    "shape": parsed_shape,
    "batch": parsed_extent,
    "schedule": parsed_schedule,
}
STANDARD_OUTPUT = "-"


def command(arguments: argparse.Namespace) -> bool:
    """Export a graph.

    Args:
        arguments: As parsed.

    Returns:
        Whether all checks passed. If not, nothing is written.
    """
    kind = RULES[arguments.rule] if arguments.graph == "step" else "newton_schulz"
    builder_arguments = _builder_arguments(kind, arguments)
    if arguments.out == STANDARD_OUTPUT:
        _check_standard_output(arguments)
        content = serialized(BUILDERS[kind](**builder_arguments))
        checks = check_list(content, arguments.verify)
        if _reported(arguments, kind, content, checks, to_stderr=True):
            sys.stdout.buffer.write(content)
            return True
        return False
    target = Path(arguments.out)
    check_target(target, force=arguments.force)
    if arguments.test_data:
        check_test_folder(_test_folder(target), force=arguments.force)
    content = serialized(BUILDERS[kind](**builder_arguments))
    return _write_checked(target, content, kind, arguments)


def _builder_arguments(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as arguments of a graph's function."""
    given = {name: value for name, value in vars(arguments).items() if name in OPTIONS}
    for name in given:
        if name not in ARGUMENTS[kind]:
            raise ValueError(
                f"{flag_of(name)} is no option of --rule {arguments.rule}. Leave it "
                "out, or choose the other rule."
            )
    return {
        name: PARSED[name](value) if name in PARSED else value
        for name, value in given.items()
    }


def _check_standard_output(arguments: argparse.Namespace) -> None:
    if arguments.test_data:
        raise ValueError(
            "--test-data is a folder beside the model, so OUT must be a file; "
            f"received {STANDARD_OUTPUT!r}."
        )
    if sys.stdout.isatty():
        raise ValueError(
            "Standard output is a terminal, and the model is binary. Redirect it, or "
            "name a file."
        )


def _write_checked(
    target: Path, content: bytes, kind: str, arguments: argparse.Namespace
) -> bool:
    with staging(target) as room:
        file, folder = room / "model", room / "test_data"
        file.write_bytes(content)
        checks = check_list(file.read_bytes(), arguments.verify)
        passed = all(check.passed is not False for check in checks)
        if passed:
            if arguments.test_data:
                write_test_data(folder, content)
                place_test_folder(folder, _test_folder(target), force=arguments.force)
            place(file, target, force=arguments.force)
    return _reported(arguments, kind, content, checks)


def _test_folder(target: Path) -> Path:
    if not target.suffix:
        raise ValueError(
            f"--test-data writes a folder named as the model without its suffix; "
            f"{target.name!r} has none. Call it {target.name + '.onnx'!r}."
        )
    return target.with_suffix("")


def _reported(
    arguments: argparse.Namespace,
    kind: str,
    content: bytes,
    checks: list[Check],
    *,
    to_stderr: bool = False,
) -> bool:
    """Print the check list; return whether all of it passed."""
    passed = all(check.passed is not False for check in checks)
    stream = sys.stderr if to_stderr else sys.stdout
    about = {
        "file": os.fspath(arguments.out),
        "kind": kind,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "written": passed,
    }
    if arguments.json:
        print_json(about, checks, stream)
    else:
        outcome = "written" if passed else "NOT written: a check failed"
        title = f"{arguments.out}: {kind}, {len(content):,} bytes, {outcome}"
        print_checks(title, checks, stream)
    return passed
