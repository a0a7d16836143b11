"""A question to the process of a backend, and its answer, as files of JSON."""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from machine import frameworks
from processes import run_worker

Options = dict[str, Any]


def asked(
    script: str,
    backend: str,
    options: Options,
    device: str,
    extra: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return what a script of this folder measures on a backend.

    Args:
        script: Its name; it ends with `answered`.
        backend: What its Keras runs on.
        options: What it is to do, in JSON's types.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        extra: More for its environment.

    Returns:
        Nothing if the backend finds no CUDA device and is to use one.
    """
    with tempfile.TemporaryDirectory() as room:
        given, answer = Path(room) / "options.json", Path(room) / "answer.json"
        text = json.dumps(options | {"device": device})
        given.write_text(text, encoding="utf-8")
        words = (backend, given, answer)
        run_worker(script, *words, device=device, exact=False, extra=extra)
        return json.loads(answer.read_text(encoding="utf-8"))


def answered(measure: Callable[[str, Options], dict[str, Any]]) -> None:
    """Be the process that measures: read the command line, write the answer.

    Args:
        measure: A function of the backend and the options.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("backend")
    parser.add_argument("options", type=Path)
    parser.add_argument("answer", type=Path)
    arguments = parser.parse_args()
    # Keras reads it when it is imported, which happens below.
    os.environ["KERAS_BACKEND"] = arguments.backend
    options = json.loads(arguments.options.read_text(encoding="utf-8"))
    machine, answer = frameworks(arguments.backend), {}
    if options["device"] != "cuda" or machine["device kind"] == "cuda":
        answer = machine | measure(arguments.backend, options)
    arguments.answer.write_text(json.dumps(answer), encoding="utf-8")
