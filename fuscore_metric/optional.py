"""Packages of an extra: refused by name where one is missing, before anything is computed."""

from __future__ import annotations

from importlib.util import find_spec

from fuscore_metric.errors import MissingPackageError


def installed(package: str) -> bool:
    """Whether there is such a package; a plain folder of its name on the path does not count."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def require(what: str, *packages: str, install: str) -> None:
    """Refuse to go on without optional packages.

    Args:
        what: What needs them, to begin the message with.
        *packages: Names to import.
        install: What to give to pip, such as `fuscore-metric[report]`.

    Raises:
        MissingPackageError: One is not installed; the message says how to install it.
    """
    missing = [package for package in packages if not installed(package)]
    if missing:
        raise MissingPackageError(f"{what} needs {', '.join(missing)}: pip install '{install}'")
