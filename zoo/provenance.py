"""What a safetensors file says of itself: how many numbers it holds, and the run that made them. Without torch."""

from __future__ import annotations

import functools
import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import WeightsError, reason

_LARGEST = 100_000_000  # bytes of a header: the format's own limit
# What files written before call options, losses and facts of a style: their bytes, and so their digests, stay.
_RENAMED = {
    "optimiser": "optimizer",
    "recolour": "recolor",
    "colour_weight": "color_weight",
    "colour": "color",
    "licence": "license",
}
_OPTION_NAMES = {old.replace("_", "-"): new.replace("_", "-") for old, new in _RENAMED.items()}
_OPTIONS = re.compile(rf"--({'|'.join(_OPTION_NAMES)})(?![\w-])")


@dataclass(frozen=True)
class Header:
    """``parameters`` of all tensors; ``provenance``: command, data, teacher, steps, hours, hardware, as far as told."""

    parameters: int
    provenance: Mapping[str, Any]


@functools.cache
def read_header(path: Path) -> Header:
    """Return what is known of a file that ``zoo train`` exported; raises WeightsError where it is no safetensors."""
    count, metadata = read_facts(path)
    return Header(count, _provenance(metadata, path))


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a safetensors file as :func:`read_facts`."""
    return read_facts(path)[1]


def written(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return facts as such metadata, which hold texts alone: others as JSON, and a text that would be taken for it."""
    return {k: v if isinstance(v, str) and _parsed(v) == v else json.dumps(v) for k, v in facts.items()}


def read_facts(path: Path) -> tuple[int, dict[str, Any]]:
    """Return how many numbers a safetensors file holds, and its metadata, values parsed from JSON where they are JSON.

    What a run says of itself bears the names of now, whatever its options were called when the file was written.
    WeightsError where it is no such file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _LARGEST:
                raise ValueError("its header is too long")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        ends = [tensor["data_offsets"][1] for tensor in header.values()]
        if path.stat().st_size != 8 + length + max(ends, default=0):
            raise ValueError("it is cut short")
        count = sum(math.prod(tensor["shape"]) for tensor in header.values())
        return count, _renamed({key: _parsed(value) for key, value in metadata.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise WeightsError(
            f"{path} cannot be read as a safetensors file ({reason(error)}): fetch or train it again."
        ) from error


def _provenance(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    # Several runs joined in one file: each tells of itself, and the card of all.
    parts = [*metadata["parts"].values()] if "parts" in metadata else [metadata]
    first = parts[0]
    card = f"in the card (zoo/checkpoints/{path.stem}.md)"
    machine = first.get("machine", {})
    kinds = sorted({m["precision"] for part in parts if (m := part.get("machine"))})
    hours = [float(part["hours"]) for part in parts if "hours" in part]
    steps = [int(part["step"]) for part in parts if "step" in part]
    return {
        "kind": "trained",
        "command": f"one run per part, {card}" if len(parts) > 1 else card,
        "data": _data(parts),
        "teacher": ", ".join(dict.fromkeys(part.get("teacher", "").partition(";")[0] for part in parts)),
        "steps": sum(steps) if steps else None,
        "hours": round(sum(hours), 4) if hours else None,
        "hardware": f"{machine['name']}, {machine['device'].upper()}, {', '.join(kinds)}" if machine else "",
    }


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _renamed(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run says of itself, or several joined ones, under the names of now: options, losses, commands."""
    found = dict(run)
    if isinstance(parts := run.get("parts"), dict):
        found["parts"] = {key: _renamed(part) if isinstance(part, dict) else part for key, part in parts.items()}
    for key in ("task", "config", "losses"):
        if key in run:
            found[key] = _with_keys_of_now(run[key])
    for key in ("command", "notes"):
        if isinstance(text := run.get(key), str):
            found[key] = _OPTIONS.sub(
                lambda option: "--" + _RENAMED[option[1].replace("-", "_")].replace("_", "-"), text
            )
    return found


def _with_keys_of_now(value: Any) -> Any:
    if isinstance(value, dict):
        return {_RENAMED.get(key, key): _with_keys_of_now(inner) for key, inner in value.items()}
    return [_with_keys_of_now(inner) for inner in value] if isinstance(value, list) else value


def _data(parts: list[Mapping[str, Any]]) -> str:
    """``2,173 content and 1,691 style images from 23 collections``."""
    counts: dict[str, int] = {}
    folders: set[str] = set()
    for part in parts:
        for name, facts in part.get("data", {}).items():
            counts[name] = max(counts.get(name, 0), int(facts["images"]))
            folders |= {folder.rpartition("/")[2] for folder in facts.get("folders", {})}
    if not counts:
        return ""
    told = " and ".join(f"{count:,} {name}" for name, count in counts.items())
    where = f" from {len(folders)} collections" if len(folders) > 1 else ""
    return f"{told} images{where}"


__all__ = ["Header", "read_facts", "read_header", "read_metadata", "written"]
