"""What is installed is what is in the checkout: every file, and no other."""

import importlib
import importlib.metadata
import re
import tomllib
from pathlib import Path

import keras_muon

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


def test_public_names_are_declared_once():
    assert sorted(keras_muon.__all__) == sorted(set(keras_muon.__all__))
    for name in keras_muon.__all__:
        assert hasattr(keras_muon, name)


def test_no_backend_is_a_hard_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {re.match(r"[\w-]+", d).group(0) for d in project["dependencies"]}
    assert required == {"keras", "numpy", "rich"}
