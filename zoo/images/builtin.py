"""Images that come with the installation: photographs of scikit-image, styles of the zoo's own."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zoo.errors import ImageError, UnknownNameError

BUILTIN_PREFIX = "builtin:"


@dataclass(frozen=True)
class BuiltinImage:
    """An image that comes with the installation, and what may be said about it.

    ``kind`` is ``content`` or ``style``; ``sha256`` is checked on reading where it is recorded (the styles; the
    photographs belong to scikit-image, which may compress them anew); ``source`` says where it comes from.
    """

    name: str
    kind: Literal["content", "style"]
    title: str
    author: str
    license: str
    source: str
    path: Path
    sha256: str | None = None


# As scikit-image's own docstrings (skimage.data) tell them; each file lies in its wheel.
_CONTENTS = (
    (
        "astronaut",
        "astronaut.png",
        "Portrait of the astronaut Eileen Collins",
        "NASA",
        "Public domain (no known copyright restrictions)",
        "NASA Great Images database",
    ),
    ("coffee", "coffee.png", "Coffee cup", "Rachel Michetti", "CC0", "Courtesy of Pikolo Espresso Bar"),
    ("chelsea", "chelsea.png", "Chelsea the cat", "Stéfan van der Walt", "CC0", "The photographer"),
    (
        "rocket",
        "rocket.jpg",
        "Launch of DSCOVR on Falcon 9, Cape Canaveral",
        "SpaceX",
        "Public domain (released by SpaceX)",
        "SpaceX Photos",
    ),
    (
        "hubble_deep_field",
        "hubble_deep_field.jpg",
        "Hubble eXtreme Deep Field",
        "NASA",
        "Public domain",
        "HubbleSite, release 2012-37",
    ),
    ("camera", "camera.png", "Photographer with a camera (greyscale)", "Lav Varshney", "CC0", "The photographer"),
)
_STYLES = Path(__file__).parent.parent / "assets" / "styles"


def builtin_contents() -> dict[str, BuiltinImage]:
    """The six photographs shipped in scikit-image's wheel, found without importing it.

    Raises :class:`ImageError` where scikit-image is not installed.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ImageError("The built-in photographs come with scikit-image, which is not installed: install it.")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    return {
        name: BuiltinImage(name, "content", title, author, license, f"{source}; in scikit-image", folder / file)
        for name, file, title, author, license, source in _CONTENTS
    }


def builtin_styles() -> dict[str, BuiltinImage]:
    """The style images drawn by the zoo's own generator, as listed in assets/styles/styles.json.

    Raises :class:`ImageError` where that list is missing or malformed.
    """
    listing = _STYLES / "styles.json"
    try:
        entries = json.loads(listing.read_text(encoding="utf-8"))
        return {entry["name"]: _builtin_style(entry) for entry in entries}
    except OSError as error:
        raise ImageError(f"The list of built-in styles '{listing}' is missing: install the zoo again.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"The list of built-in styles '{listing}' is malformed: install the zoo again.") from error


def _builtin_style(entry: dict[str, str]) -> BuiltinImage:
    return BuiltinImage(
        name=entry["name"],
        kind="style",
        title=entry["title"],
        author="the zoo's style generator",
        license=entry["license"],
        source="drawn by the zoo's own seeded generator",
        path=_STYLES / entry["file"],
        sha256=entry["sha256"],
    )


def builtin(name: str) -> BuiltinImage:
    """A built-in photograph or style by its name; raises :class:`UnknownNameError` with the nearest names."""
    contents = builtin_contents()
    if name in contents:
        return contents[name]
    styles = builtin_styles()
    if name not in styles:
        raise UnknownNameError("built-in image", name, [*contents, *styles])
    return styles[name]
