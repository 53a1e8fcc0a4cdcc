"""YAML files that ship in folders of their own, protocols, image sets and recipes: found by name, read by schema."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from zoo.errors import RegistryError, UnknownNameError, ZooError
from zoo.names import on_disk
from zoo.registry import PACKAGE, explain, read_yaml

T = TypeVar("T", bound=BaseModel)


def folder(kind: str) -> Path:
    """Return where ``protocols``, ``sets`` or ``recipes`` lie: inside the installed package, or in the checkout."""
    bundled = PACKAGE / kind
    return bundled if bundled.is_dir() else PACKAGE.parent / "benchmarks" / kind


def names(kind: str) -> list[str]:
    """Return the names of those that ship, in order."""
    return sorted(path.stem for path in folder(kind).glob("*.yaml"))


def find(kind: str, noun: str, name: str, error: type[ZooError]) -> Path:
    """Return the file of one that ships, or the path given; UnknownNameError or ``error`` where there is none."""
    if name.endswith((".yaml", ".yml")) or "/" in name or "\\" in name:
        path = on_disk(name)
        if not path.is_file():
            raise error(f"There is no {noun} file {name}: check the path.")
        return path
    if name not in names(kind):
        raise UnknownNameError(noun, name, names(kind), "A file of your own is given as a path to .yaml.")
    return folder(kind) / f"{name}.yaml"


def read(path: Path, schema: type[T], error: type[ZooError]) -> T:
    """Return a file checked against its schema; ``error`` names the first fault and its place."""
    try:
        return schema.model_validate(read_yaml(path))
    except RegistryError as failure:
        raise error(str(failure)) from failure
    except ValidationError as failure:
        raise error(explain(failure, path.name)) from failure
