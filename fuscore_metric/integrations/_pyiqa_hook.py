"""Make pyiqa know FuScore, whichever of the two is imported first. Standard library only.

`pyiqa.create_metric` asserts that a name is in its table before it looks for plugins, so its
entry-point group alone helps only after another metric was made. Registering needs pyiqa's table,
and therefore pyiqa, and therefore torch: too much for `import fuscore_metric`. So: now, if pyiqa is
there already; else as soon as it has been imported; at no cost if it never is.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

HOST = "pyiqa"


def install() -> None:
    """Register with pyiqa now, or when it comes. Any number of times."""
    if HOST in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(MetaPathFinder):
    """Finds pyiqa as it would be found without us, and registers once it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find pyiqa through the other finders; leave every other module to them."""
        del path, target
        if fullname != HOST:
            return None
        sys.meta_path.remove(self)  # or the search below would come back here
        try:
            spec = importlib.util.find_spec(HOST)
        finally:
            sys.meta_path.insert(0, self)  # not every search for a module imports it
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _register() -> None:
    try:
        from fuscore_metric.integrations.pyiqa import register

        register()
    except Exception as error:  # whatever is wrong with us must not break the import of pyiqa
        import logging  # not needed by those who only import this package

        logging.getLogger(__name__).warning("FuScore could not register with pyiqa: %s", error)
