"""Which images and which pairs of them a protocol takes: whole image sets, and samples that a seed decides.

A sample must be the same on every machine and for good, so it is no library's random generator that draws it: every
candidate is ranked by the sha256 of the seed and its name, and the first ones are taken. A larger sample therefore
contains the smaller one of the same seed, and what is chosen does not depend on the order of the candidates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError

from zoo.config import LARGEST_INT, SEEDS
from zoo.imagesets import Role, load_manifest, set_image
from zoo.names import find
from zoo.registry import Strict, explain

SET_PREFIX = "set:"
Seed = Annotated[int, Field(ge=SEEDS[0], le=SEEDS[1])]


class SetUse(Strict):
    """The contents or styles of an image set: all, or ``sample`` of them that ``seed`` decides."""

    set: str
    sample: int | None = Field(default=None, ge=1, le=LARGEST_INT)
    seed: Seed = 0


class PairSample(Strict):
    """``sample`` of all pairs of a content and a style, decided by ``seed``."""

    sample: int = Field(ge=1, le=LARGEST_INT)
    seed: Seed = 0


class StylesPerContent(Strict):
    """For every content ``styles_per_content`` of the styles, decided by ``seed`` and the content's name."""

    styles_per_content: int = Field(ge=1, le=LARGEST_INT)
    seed: Seed = 0


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "styles_per_content" if "styles_per_content" in value else "sample"
    if isinstance(value, BaseModel):
        return "sample" if isinstance(value, PairSample) else "styles_per_content"
    return "list" if isinstance(value, list | tuple) else "word"


# ``all`` pairs of a content and a style; ``zip``, the first content with the first style and so on; a list of pairs; or
# a sample.
Pairs = Annotated[
    Annotated[Literal["all", "zip"], Tag("word")]
    | Annotated[list[tuple[str, str]], Tag("list")]
    | Annotated[PairSample, Tag("sample")]
    | Annotated[StylesPerContent, Tag("styles_per_content")],
    Discriminator(_kind),
]


def expand_sets(value: Any, role: Role) -> Any:
    """A list of images in which every ``{set: NAME, ...}`` is replaced by the images of that set; before validation.

    ``{set: NAME}`` alone stands for a list of itself. ValueError for a malformed one, UnknownNameError for a set that
    is not known.
    """
    if isinstance(value, dict) and "set" in value:
        value = [value]
    if not isinstance(value, list):
        return value
    images: list[Any] = []
    for item in value:
        images += _images(item, role) if isinstance(item, dict) and "set" in item else [item]
    return images


def _images(item: dict[str, Any], role: Role) -> list[dict[str, str]]:
    try:
        use = SetUse.model_validate(item)
    except ValidationError as error:
        raise ValueError(explain(error, "an image set").rstrip(".")) from error
    found = getattr(load_manifest(use.set), role)
    if use.sample is not None:
        if use.sample > len(found):
            raise ValueError(f"the set {use.set} has {len(found)} {role}, of which {use.sample} cannot be taken")
        chosen = drawn([image.name for image in found], use.sample, use.seed)
        found = [image for image in found if image.name in chosen]
    return [{"image": f"{SET_PREFIX}{use.set}/{image.file}", "sha256": image.sha256} for image in found]


def set_file(reference: str) -> Path:
    """The file behind ``set:NAME/FILE``; UnknownNameError, or DataError with the line that fetches the set."""
    from zoo.errors import UnknownNameError

    name, _, file = reference.removeprefix(SET_PREFIX).partition("/")
    manifest = load_manifest(name)
    for image in manifest.images:
        if image.file == file:
            return set_image(manifest, image)
    raise UnknownNameError(f"image of the set {name}", file, [image.file for image in manifest.images])


def list_pairs(pairs: Any, contents: Sequence[str], styles: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs (content, style) that the rule ``pairs`` picks, by name; ValueError where it cannot be met."""
    everything = [(content, style) for content in contents for style in styles]
    if pairs == "all":
        return everything
    if pairs == "zip":
        if len(contents) != len(styles):
            raise ValueError(f"pairs: zip needs as many contents as styles, not {len(contents)} and {len(styles)}")
        return list(zip(contents, styles, strict=True))
    if isinstance(pairs, PairSample):
        if pairs.sample > len(everything):
            raise ValueError(f"pairs: there are {len(everything)}, of which {pairs.sample} cannot be taken")
        chosen = drawn(["__".join(pair) for pair in everything], pairs.sample, pairs.seed)
        return [pair for pair in everything if "__".join(pair) in chosen]
    if isinstance(pairs, StylesPerContent):
        if pairs.styles_per_content > len(styles):
            raise ValueError(
                f"pairs: there are {len(styles)} styles, of which {pairs.styles_per_content} cannot be taken"
            )
        found: list[tuple[str, str]] = []
        for content in contents:
            own = drawn([f"{content}__{style}" for style in styles], pairs.styles_per_content, pairs.seed)
            found += [(content, style) for style in styles if f"{content}__{style}" in own]
        return found
    return [(_known(content, contents, "contents"), _known(style, styles, "styles")) for content, style in pairs]


def _known(name: str, names: Sequence[str], role: str) -> str:
    """The name as the protocol has it; ValueError where it is not among them."""
    found = find(name, names)
    if found is None:
        raise ValueError(f"pairs: {name!r} is not one of the {role}")
    return found


def drawn(names: Sequence[str], count: int, seed: int) -> set[str]:
    """``count`` of the names: those whose hash with the seed comes first."""
    return set(sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())[:count])
