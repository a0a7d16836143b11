"""`keras-muon`: export, verify, inspect and run ONNX files of this package."""

import importlib
import os
import re
import signal
import sys
from collections.abc import Sequence

from keras_muon.export.cli_options import OPTIONS, flag_of
from keras_muon.export.cli_parser import PROGRAM, parser
from keras_muon.export.file_errors import writing

GOOD, FAILED, BAD_INPUT, MISSING_EXTRA = 0, 1, 2, 3
# What shells report for a process that Ctrl-C or a closed pipe ended.
INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143

# The module of each command, imported when it is given: all but the grammar needs onnx.
COMMANDS = {
    "export": "cli_export",
    "verify": "cli_verify",
    "inspect": "cli_inspect",
    "run": "cli_run",
}
# Names that messages of the library use and that are options here.
OPTION_NAMES = {*OPTIONS, "device", "extent", "tf32", "threads"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: The arguments. None takes those of the process.

    Returns:
        The exit code: 0 good, 1 a check failed, 2 usage or bad input, 3 a missing
        extra.

    Example:
        >>> main(["verify"])  # and one line to standard error
        2
    """
    if argv is None:
        # As Ctrl-C does, so that no temporary file is left.
        signal.signal(signal.SIGTERM, _terminate)
    try:
        # The errors of files have their names by now.
        with writing("standard output"):
            code = _command(argv)
            print(end="", flush=True)
        return code
    except _TerminatedError:
        return _refused("terminated.", TERMINATED)
    except SystemExit as end:
        # 0 after --help and --version; rich ends with 1 where a pipe is closed.
        return PIPE_CLOSED if end.code else GOOD
    except KeyboardInterrupt:
        return _refused("interrupted.", INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        return PIPE_CLOSED
    except ImportError as error:
        return _refused(str(error), MISSING_EXTRA)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        _drop_output()
        return _refused(str(error), BAD_INPUT)
    except MemoryError as error:
        return _refused(f"Not enough memory: {error}", BAD_INPUT)


def _command(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    # Importing the package's public names asks for onnx, and says how to get it.
    importlib.import_module("keras_muon.export.extras").require_onnx()
    name = COMMANDS[arguments.command]
    command = importlib.import_module(f"keras_muon.export.{name}").command
    return FAILED if command(arguments) is False else GOOD


def _drop_output() -> None:
    """Drop what cannot be printed: Python would complain once more at its end."""
    try:
        # As sys.stdout.flush(), and nothing where there is no standard output.
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _TerminatedError(BaseException):
    """SIGTERM came."""


def _terminate(number: int, frame: object) -> None:
    raise _TerminatedError


def _refused(message: str, code: int) -> int:
    line = " ".join(in_options(message).split())
    print(f"{PROGRAM}: error: {line}", file=sys.stderr)
    return code


def in_options(message: str) -> str:
    """Return a message of the library in the words of the command line.

    Args:
        message: With arguments as in Python: `dynamic`, dynamic=True, dtype='float32',
            panels=1.

    Returns:
        The same with --dynamic, --dtype float32 and --panels 1.

    Example:
        >>> in_options("`shape` has names. Pass dynamic=True.")
        '--shape has names. Pass --dynamic.'
    """
    names = "|".join(OPTION_NAMES)
    message = re.sub(rf"`({names})`", lambda m: flag_of(m[1]), message)
    message = re.sub(rf"\b({names})=True", lambda m: flag_of(m[1]), message)
    return re.sub(
        rf"\b({names})=(?:'([^']*)'|(\d+))",
        lambda m: f"{flag_of(m[1])} {m[2] if m[3] is None else m[3]}",
        message,
    )
