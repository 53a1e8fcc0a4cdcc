"""Trained styles: what a per-style network says of the styles it holds, and how an image is known to be one of them.

A checkpoint of a method with ``traits.styles == "trained"`` keeps a record per style in its metadata. A style image is
recognised by the perceptual hash in that record, so a resized or re-encoded copy will do; any other image is refused
with the command that trains it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo import images
from zoo.color import luminance
from zoo.errors import ConfigError, UnknownNameError, UnsupportedError, WeightsError
from zoo.names import find
from zoo.provenance import read_metadata

if TYPE_CHECKING:
    from zoo.stylizer import Style
    from zoo.training.task import TrainingTask

# Side of the luminance thumbnail and of its block of lowest frequencies (Zauner 2010, section 3.2.1: 32 and 8).
_THUMBNAIL, _BLOCK = 32, 8
# Of 64 bits. Copies resized to 96 ... 777 pixels and saved as JPEG of quality 30 ... 85 differ in at most 2; of 308
# paintings and drawings no two differ in fewer than 14.
SAME = 7
# Ends the name of a network that makes textures in a style, where a checkpoint holds such ones too.
TEXTURE = "-texture"


@dataclass(frozen=True)
class TrainedStyle:
    """A style that a network was trained on. ``phash`` is its perceptual hash, 16 hex digits; empty if unknown."""

    name: str
    phash: str = ""
    title: str = ""
    artist: str = ""
    year: str = ""
    source: str = ""
    license: str = ""

    def to_dict(self) -> dict[str, str]:
        """The record as a checkpoint keeps it."""
        return dataclasses.asdict(self)


# -- recognising an image ---------------------------------------------------------------------------------------------


@torch.no_grad()
def perceptual_hash(image: Tensor) -> str:
    """64 bits, as 16 hex digits, that survive resizing and compression; ``image`` is (1, 3, H, W) in [0, 1].

    The signs, against their median, of the 8 x 8 lowest frequencies of the luminance (DCT) without the constant ones
    (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, section 3.2.1).
    """
    gray = luminance(image.detach().float().cpu())[:, :1]
    small = F.interpolate(gray, (_THUMBNAIL, _THUMBNAIL), mode="bilinear", antialias=True)[0, 0].double()
    n = torch.arange(_THUMBNAIL, dtype=torch.float64)
    cosines = torch.cos(math.pi * (n[None] + 0.5) * n[1 : _BLOCK + 1, None] / _THUMBNAIL)
    values = (cosines @ small @ cosines.T).flatten()
    bits = "".join("1" if bit else "0" for bit in (values > values.median()).tolist())
    return f"{int(bits, 2):016x}"


def recognize(image: Tensor, styles: Mapping[str, TrainedStyle]) -> str | None:
    """The name of the trained style that ``image`` is a copy of, or None."""
    if not styles:
        return None
    own = int(perceptual_hash(image), 16)
    known = [(int(s.phash, 16), name) for name, s in styles.items() if s.phash]
    distance, name = min(((own ^ other).bit_count(), name) for other, name in known) if known else (SAME + 1, "")
    return name if distance <= SAME else None


# -- reading and writing records --------------------------------------------------------------------------------------


def load_style(source: str, size: int, records: str | None = None) -> tuple[TrainedStyle, Tensor]:
    """A style to train on: its record and its pixels (1, 3, H, W), long side ``size`` at most.

    ``source`` is a path or ``builtin:NAME``. ``records`` is a JSON file that says more of files by their stem:
    ``{"starry-night": {"title": ..., "artist": ..., "year": ..., "source": ..., "license": ...}}``, optionally with
    another ``name``. Raises ImageError, UnknownNameError, ConfigError for records that cannot be read.
    """
    whole = images.read(source)
    known = images.builtin_styles()
    name = source.removeprefix("builtin:")
    if source.startswith("builtin:") and name in known:
        entry = known[name]
        facts = {"title": entry.title, "artist": entry.author, "source": entry.source, "license": entry.license}
    else:
        name = Path(name).stem
        listed = _read_records(records) if records else {}
        facts = listed.get(find(name, listed) or "", {})
    unknown = set(facts) - {field.name for field in dataclasses.fields(TrainedStyle)}
    if unknown:
        raise ConfigError(f"The record of style {name!r} has unknown keys: {', '.join(sorted(unknown))}.")
    texts = {key: str(value) for key, value in facts.items()}
    record = TrainedStyle(**{"name": slug(name), **texts, "phash": perceptual_hash(whole.pixels)})
    pixels = whole.pixels if max(whole.size) <= size else images.resize(whole.pixels, f"long:{size}")
    return record, pixels


def slug(text: str) -> str:
    """A name that can stand in a tensor's key and on a command line: lower case letters, digits and hyphens.

    Letters lose their accents, however these are written, and stay in their own script.
    """
    letters = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return re.sub(r"[\W_]+", "-", letters).strip("-") or "style"


def _read_records(path: str) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"The records of styles {path} cannot be read as JSON: {error}.") from error
    if not (isinstance(found, dict) and all(isinstance(facts, dict) for facts in found.values())):
        raise ConfigError(f"The records of styles {path} must be a JSON object that holds an object for every style.")
    return found


def find_styles(metadata: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, TrainedStyle]:
    """Every record of a style inside a checkpoint's metadata, however deep, by name.

    ``names`` are the names under which the file keeps them: a record found under such a key bears that name.
    """
    found: dict[str, TrainedStyle] = {}
    for path, record in _walk(metadata, ()):
        given = next((key for key in reversed(path) if names is not None and key in names), record["name"])
        fields = {f.name: str(record.get(f.name, "")) for f in dataclasses.fields(TrainedStyle)}
        found.setdefault(given, TrainedStyle(**{**fields, "name": given}))
    if names is None:
        return found
    return {name: found.get(name, TrainedStyle(name)) for name in names}


def split_styles(state: Mapping[str, Tensor], anchor: str) -> dict[str, dict[str, Tensor]]:
    """The networks of a checkpoint whose keys are ``{style}.{tensor}``, by style; by ``""`` where keys are bare.

    ``anchor`` is a tensor that every network has. Raises WeightsError where the file holds none.
    """
    prefixes = [key.removesuffix(anchor) for key in state if key == anchor or key.endswith("." + anchor)]
    if not prefixes:
        raise WeightsError(f"The checkpoint holds no network of this method: no tensor {anchor!r} is in it.")
    stray = sorted(key for key in state if not any(key.startswith(p) for p in prefixes))
    if stray:
        raise WeightsError(f"The checkpoint has tensors of no style: {', '.join(stray[:4])}.")
    return {p.removesuffix("."): {k[len(p) :]: v for k, v in state.items() if k.startswith(p)} for p in prefixes}


def one_of(state: Mapping[str, Tensor], anchor: str, name: str) -> dict[str, Tensor]:
    """The network of style ``name`` in a checkpoint of one or several; of any style where ``name`` is not in it.

    A start for training: a network that knows another style has learned to keep a photograph. A network for textures
    (its name says so) begins from another of those. Raises WeightsError where the file holds none of either kind.
    """
    states = split_styles(state, anchor)
    alike = [other for other in states if other.endswith(TEXTURE) == name.endswith(TEXTURE) or not other]
    if not alike:
        raise WeightsError(f"The checkpoint has no network to start {name!r} from: it holds {', '.join(states)}.")
    return states[name] if name in states else states[alike[0]]


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        if isinstance(value.get("name"), str) and isinstance(value.get("phash"), str):
            yield path, value
            return
        for key, inner in value.items():
            yield from _walk(inner, (*path, str(key)))
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, path)


# -- what a method does with the style it is given --------------------------------------------------------------------


def trained_name(
    style: Style,
    styles: Mapping[str, TrainedStyle],
    method: str,
    task: type[TrainingTask],
    *,
    flags: str = "--style FILE",
    steps: int | None = None,
) -> str:
    """The trained style that ``style`` names or shows.

    UnknownNameError for another name; UnsupportedError for a mask, and for another image: it lists the styles and the
    command of ``zoo train`` that learns this one in ``steps`` (None: the default of ``task``). ``flags`` are the
    options of ``task`` that name the image.
    """
    method = method.partition(".")[0]
    if style.mask is not None:
        raise UnsupportedError(f"{method} has learned whole styles: leave the style's mask out.")
    if style.image is None:
        known = find(style.name or "", styles)
        if known is None:
            raise UnknownNameError("style", style.name or "", styles, f"{method} knows the styles it was trained on.")
        return known
    name = recognize(style.image, styles)
    if name is None:
        raise UnsupportedError(
            f"{method} was not trained on this style image, only on {', '.join(sorted(styles))}: take one of these, or "
            f"train it with 'zoo train {method} {flags} --content-dir PHOTOGRAPHS --out RUN' "
            f"({steps or task.defaults.steps:,} steps; --time-limit MINUTES ends it sooner)."
        )
    return name


__all__ = [
    "SAME",
    "TrainedStyle",
    "find_styles",
    "load_style",
    "perceptual_hash",
    "read_metadata",
    "recognize",
    "slug",
    "split_styles",
    "trained_name",
]
