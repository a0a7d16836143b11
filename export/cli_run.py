"""`keras-muon run`: a graph on arrays of NumPy's files."""

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from keras_muon.export.extras import require_onnxruntime
from keras_muon.export.file_errors import reading, writing
from keras_muon.export.finish import is_as_sealed
from keras_muon.export.reading import read_model, require_file
from keras_muon.export.running import run
from keras_muon.export.target import check_target, place, staging


def command(arguments: argparse.Namespace) -> bool:
    """Run a graph and write its outputs.

    Args:
        arguments: As parsed.

    Returns:
        True.
    """
    require_onnxruntime()
    model, _ = read_model(arguments.file)
    if is_as_sealed(model) is False:
        print(
            f"keras-muon: warning: {arguments.file!r} was changed since it was "
            "exported: keras-muon verify tells where.",
            file=sys.stderr,
        )
    outputs = [value.name for value in model.graph.output]
    targets = [Path(name) for name in arguments.out]
    names = [arguments.file, *arguments.inputs]
    sources = [Path(name) for name in names if _exists(name)]
    _check_targets(targets, outputs, sources, force=arguments.force)
    results = _results(model, arguments)
    for target, result in zip(targets, results, strict=True):
        _write(target, result, force=arguments.force)
    return True


def _exists(name: str) -> bool:
    with reading(repr(name)):
        return Path(name).exists()


def _check_targets(
    targets: list[Path], outputs: list[str], sources: list[Path], *, force: bool
) -> None:
    if len(targets) != len(outputs) or len(set(targets)) != len(targets):
        names = ", ".join(map(repr, outputs))
        raise ValueError(
            f"--out needs a file of its own for each of the {len(outputs)} outputs "
            f"({names}); received {len(targets)}: {', '.join(map(str, targets))}."
        )
    for target in targets:
        if str(target) == "-":
            raise ValueError(
                "--out '-' is no file, and arrays need one: '-' is for export."
            )
        with writing(repr(str(target))):
            exists = target.exists()
        if exists and any(target.samefile(source) for source in sources):
            raise ValueError(f"--out {str(target)!r} is an input of this run.")
        check_target(target, force=force)


def _results(model: Any, arguments: argparse.Namespace) -> tuple:
    try:
        results = run(
            model,
            *[_loaded(text) for text in arguments.inputs],
            device=arguments.device,
            tf32=arguments.tf32,
            threads=arguments.threads,
        )
    except Exception as error:
        # Its exceptions share no base class but Exception.
        if type(error).__module__.startswith("onnxruntime"):
            raise ValueError(f"ONNX Runtime refuses the file: {error}") from error
        raise
    return results if isinstance(results, tuple) else (results,)


def _loaded(text: str) -> Any:
    """A number, or the array of a file."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    require_file(text)
    try:
        with reading(repr(text)):
            array = np.load(text, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{text!r} is no .npy file of numbers. numpy.save writes one."
        ) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{text!r} holds several arrays. Save one as a .npy file.")
    return array


def _write(target: Path, array: np.ndarray, *, force: bool) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    with staging(target) as room:
        file = room / "array"
        file.write_bytes(buffer.getvalue())
        place(file, target, force=force)
