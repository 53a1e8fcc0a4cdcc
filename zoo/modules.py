"""The text of modules, found without running them: what is known of a method must not cost an import of torch."""

from __future__ import annotations

import hashlib
import importlib.machinery
import sys
from pathlib import Path

from zoo.errors import RegistryError


def _find_module(module: str) -> importlib.machinery.ModuleSpec | None:
    # importlib.util.find_spec would import the parent packages, and with them perhaps torch.
    spec: importlib.machinery.ModuleSpec | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        where = spec.submodule_search_locations if spec is not None else None
        if depth > 1 and where is None:
            return None
        name = ".".join(parts[:depth])
        found = (finder.find_spec(name, where) for finder in sys.meta_path)
        spec = next((s for s in found if s is not None), None)
        if spec is None:
            return None
    return spec


def _module_file(module: str) -> Path:
    spec = _find_module(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise RegistryError(f"Module {module!r} is not installed.")
    return Path(spec.origin)


def module_source(module: str) -> str:
    """The text of a module, found without running it or its packages; RegistryError if there is none."""
    return _module_file(module).read_text(encoding="utf-8")


def package_digest(module: str) -> str:
    """Hex digits of the code of a module and of those beside it in its package, found as :func:`module_source` does;
    none of a module that has no file."""
    try:
        path = _module_file(module)
    except RegistryError:  # a class defined in a notebook
        return ""
    inside = "." in module or path.name == "__init__.py"
    digest = hashlib.sha256()
    for file in sorted(path.parent.glob("*.py")) if inside else [path]:
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


__all__ = ["module_source", "package_digest"]
