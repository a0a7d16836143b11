"""The examples in docstrings run, and every public name has one."""

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Mapping

import keras
import pytest

import keras_muon
import keras_muon.export

MODULES = sorted(
    f"{package.__name__}.{module.name}"
    for package in (keras_muon, keras_muon.export)
    for module in pkgutil.iter_modules(package.__path__)
    if not module.ispkg
)
PUBLIC = [(keras_muon, name) for name in keras_muon.__all__ if name != "__version__"]
PUBLIC += [(keras_muon.export, name) for name in keras_muon.export.__all__]


def run_examples(name, text=None):
    """Run the examples of a module, or of one text; return (failed, attempted)."""
    module = importlib.import_module(name)
    names = {**vars(module), "keras": keras}
    runner = doctest.DocTestRunner(
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    if text is not None:
        tests = [doctest.DocTestParser().get_doctest(text, names, name, name, 0)]
    else:
        tests = doctest.DocTestFinder().find(module, name, globs=names)
    for test in tests:
        runner.run(test)
    return runner.summarize(verbose=False)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    assert run_examples(name).failed == 0


def test_a_wrong_example_is_noticed(capsys):
    wrong = ">>> moonlight_scale(256, 1024)\n6.5\n"
    assert run_examples("keras_muon.scaling", wrong).failed == 1


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_public_names_are_documented(package, name):
    value = getattr(package, name)
    if not callable(value):
        assert isinstance(value, Mapping)
        return
    text = inspect.getdoc(value)
    assert ">>> " in text, "no example"
    for section in ("Args:", "Raises:", "Example:"):
        assert section in text
