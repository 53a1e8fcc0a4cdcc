"""What the browser sends and is sent: plain values, each checked before it is used."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import unquote

from zoo.errors import ImageError, InputError

# Leaves a widget as it is.
SKIP: dict[str, Any] = {"__type__": "update"}
_LONGEST = 300


def update(**properties: Any) -> dict[str, Any]:
    """New properties of a widget."""
    return {**SKIP, **properties}


def file(address: str) -> dict[str, Any]:
    """A picture or film under this server's own address, as widgets take it."""
    name = unquote(address.rpartition("/")[2])
    meta, kind = {"_type": "gradio.FileData"}, "video/mp4" if is_film(address) else "image/png"
    return {"path": address, "url": address, "orig_name": name, "mime_type": kind, "meta": meta}


def is_film(address: str) -> bool:
    """Return whether a result's address is that of a film."""
    return address.endswith(".mp4")


def token_of(dropped: object) -> str:
    """The token of a file that was dropped, as the answer to its upload named it; ImageError for anything else."""
    token = dropped.get("path") if isinstance(dropped, dict) else None
    if not isinstance(token, str):
        raise ImageError("The file was not uploaded here: drop it again.")
    return token


def text(value: object, name: str) -> str:
    """A text of at most 300 characters, "" for none; InputError otherwise."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise InputError(f"{name} must be a text of at most {_LONGEST} characters.")
    return value


def texts(value: object, name: str) -> list[str]:
    """A list of texts, empty for none; InputError otherwise."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{name} must be a list.")
    return [text(one, name) for one in value if one is not None]


def number(value: object, name: str) -> float:
    """A finite number; InputError otherwise."""
    # Whole numbers may be larger than any float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise InputError(f"{name} must be a number.")
    return float(value)


def whole(value: object, name: str) -> int:
    """A whole number, 0 for none; InputError otherwise."""
    if value is None:
        return 0
    if math.modf(number(value, name))[0]:
        raise InputError(f"{name} must be a whole number, got {value:g}.")
    return int(value)  # pyright: ignore[reportArgumentType]  # number() took it for one
