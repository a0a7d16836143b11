"""What is installed is what is in the checkout: every file, and no other."""

import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

import keras_muon
import keras_muon.export

ROOT = Path(__file__).parent.parent


def installed_files():
    """Return {package: file names} of the installed distribution."""
    package = Path(keras_muon.__file__).parent
    if package == ROOT / "keras_muon":  # an editable installation
        return {"keras_muon": names(package), "export": names(ROOT / "export")}
    return {"keras_muon": names(package), "export": names(package / "export")}


def names(folder):
    return {path.name for path in folder.glob("*.py*") if path.name != "__pycache__"}


def test_every_source_file_is_installed():
    for folder, installed in installed_files().items():
        assert installed == names(ROOT / folder)
        assert "__init__.py" in installed


def test_type_information_is_installed():
    """PEP 561: without this file type checkers ignore the annotations."""
    assert "py.typed" in {p.name for p in Path(keras_muon.__file__).parent.iterdir()}


def test_export_is_importable_by_its_public_name():
    assert importlib.import_module("keras_muon.export").__doc__


def test_version_is_written_once():
    installed = importlib.metadata.version("keras-muon")
    assert installed == keras_muon.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## (\S+)", changelog, re.MULTILINE).group(1) == installed


@pytest.mark.parametrize("package", [keras_muon, keras_muon.export])
def test_public_names_are_declared_once(package):
    assert sorted(package.__all__) == sorted(set(package.__all__))
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert hasattr(package, name)


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names_of(requirements):
    return {re.match(r"[\w-]+", requirement).group(0) for requirement in requirements}


def test_no_backend_is_a_hard_dependency():
    assert names_of(PROJECT["dependencies"]) == {"keras", "numpy", "rich"}


def test_every_runtime_brings_onnx_and_one_runtime():
    """Both runtimes at once overwrite each other's files (onnxruntime issue 26996)."""
    extras = PROJECT["optional-dependencies"]
    assert names_of(extras["onnx"]) == {"onnx"}
    assert names_of(extras["onnxruntime"]) == {"onnx", "onnxruntime"}
    on_linux, on_darwin = (
        names_of(
            r for r in extras["onnxruntime-gpu"] if r.count(marker) or ";" not in r
        )
        for marker in ("!= 'darwin'", "== 'darwin'")
    )
    assert on_linux == {"onnx", "onnxruntime-gpu"}
    assert on_darwin == {"onnx", "onnxruntime"}
    with_cuda = extras["onnxruntime-gpu-cuda"]
    assert "keras-muon[onnxruntime-gpu]" in with_cuda
    # cuBLAS comes with the extra `cudnn` alone.
    assert any(r.startswith("onnxruntime-gpu[cuda,cudnn]") for r in with_cuda)


def test_the_oldest_keras_is_the_one_that_is_tested():
    """A range that nothing runs is a guess: 3.5 was wrong for 16-bit weights."""
    (oldest,) = re.findall(r"keras>=([\d.]+)", " ".join(PROJECT["dependencies"]))
    _, others = (ROOT / "tox.ini").read_text().split("pytest --numprocesses", 1)
    assert f"{{/}}oldest keras=={oldest}.0\n" in others
    assert f"Keras {oldest} or later" in (ROOT / "README.md").read_text()
