"""Run the command line in this process, with what it prints."""

import json

from keras_muon.export import muon_step, newton_schulz, serialized
from keras_muon.export.cli import main


def exported(folder, name="polar.onnx", **arguments):
    """The path of a small good file."""
    path = folder / name
    path.write_bytes(serialized(newton_schulz((8, 4), **arguments)))
    return path


def exported_step(folder):
    path = folder / "muon.onnx"
    path.write_bytes(serialized(muon_step((8, 4))))
    return path


def refused(capsys, *words, code=2):
    """The one line that a command line is refused with."""
    assert main([str(word) for word in words]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("keras-muon: error: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err
    return printed.err


def answered(capsys, *words, code=0):
    """What a command line prints as JSON."""
    assert main([*map(str, words), "--json"]) == code
    printed = capsys.readouterr()
    assert printed.err == ""
    return json.loads(printed.out)


def verdict_on(capsys, path, code=1):
    """(verdict, reason, rows by name) of a file."""
    answer = answered(capsys, "verify", path, code=code)
    return answer["verdict"], answer["reason"], {r["name"]: r for r in answer["checks"]}


def altered(tmp_path, change, build=lambda: newton_schulz((8, 4))):
    """The path of a file whose model was changed."""
    model = build()
    change(model)
    path = tmp_path / "altered.onnx"
    path.write_bytes(serialized(model))
    return path
