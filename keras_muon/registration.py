"""Register Muon with Keras as soon as both are imported, in either order.

`keras.saving.load_model` finds the classes that are registered when it is called. With
`import keras_muon` alone nothing of Keras is loaded, so registration waits for Keras.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence

# Importing this module registers the class.
REGISTERED_BY = "keras_muon.muon"


def register_with_keras() -> None:
    """Import Muon now if Keras is there, else right after Keras is imported."""
    if "keras" in sys.modules:
        importlib.import_module(REGISTERED_BY)
    else:
        sys.meta_path.insert(0, _WhenKerasIsImported())


class _WhenKerasIsImported:
    """A finder that adds one import to the end of Keras' own, once."""

    def __init__(self) -> None:
        self._looking = False

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "keras" or self._looking:
            return None
        self._looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking = False
        if spec is not None and spec.loader is not None:
            self._extend(spec.loader)
        return spec

    def _extend(self, loader: importlib.abc.Loader) -> None:
        execute = loader.exec_module

        def execute_and_register(module: types.ModuleType) -> None:
            execute(module)
            # Not earlier: a spec may be looked up, or fail to load, and come again.
            sys.meta_path[:] = [f for f in sys.meta_path if f is not self]
            vars(loader).pop("exec_module", None)
            importlib.import_module(REGISTERED_BY)

        # On the loader itself: it keeps its class, which tells resources where to look.
        loader.exec_module = execute_and_register  # type: ignore[method-assign]
