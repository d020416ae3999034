"""Packages of the extra [train] that only some importers need, loaded when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType


def optional_module(name: str) -> ModuleType:
    """Import a package of the extra [train].

    Raises:
        ImportError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Expected the package `{name}` to be installed: pip install 'fuscore-metric[train]'"
        ) from error
