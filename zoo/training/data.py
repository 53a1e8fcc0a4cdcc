"""Training images: decoded once into a memory-mapped cache, then cropped, resized and flipped as training asks.

Sample number ``n`` of a set is a pure function of (seed, set, n): which image, which crop, whether mirrored. A step
therefore knows its batch from its number alone, and a run that is resumed sees exactly what an unbroken one would,
without a loader whose state would have to be saved.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import queue
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from PIL import Image as PILImage
from torch import Tensor

from zoo import files, images
from zoo.download import home
from zoo.errors import ConfigError, ImageError, InputError
from zoo.nn.tiles import to_levels

Building = Callable[[int, int], None]
_FORMAT = 1
_HASH = 16  # characters of a sha256


def find_images(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the image files of a folder (with all folders inside it but hidden ones), of a text file that lists one
    path a line, or of a sequence of any of these; sorted within a folder, relative lines counted from the list's
    folder.

    Raises ImageError where a path does not exist, a list is no text in UTF-8, or nothing is found.
    """
    if isinstance(source, str | os.PathLike):
        source = [source]
    found: dict[str, Path] = {}
    for path in map(Path, source):
        if path.is_dir():
            listed = images.walk(path)
        elif path.suffix.lower() in (".txt", ".lst") and path.is_file():
            lines = (line.strip() for line in _read_list(path).splitlines())
            listed = [path.parent / line for line in lines if line and not line.startswith("#")]
        elif path.exists():
            listed = [path]
        else:
            raise ImageError(f"'{path}' does not exist: give a folder of images or a text file with one path a line.")
        found |= {os.path.realpath(p): p for p in listed}
    if not found:
        raise ImageError(f"No images in {', '.join(repr(str(p)) for p in source)}: put some there.")
    return list(found.values())


def _read_list(path: Path) -> str:
    try:
        # Editors of one system put a mark before the first line.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"The list '{path}' cannot be read as text in UTF-8 ({error}): save it as such.") from error
    if "\0" in text:
        raise ImageError(f"The list '{path}' is no text in UTF-8, it holds zero bytes: save it as such.")
    return text


def require_folder(path: Path, flag: str, *, for_weights: bool = False) -> None:
    """Before work begins whose results go there: ConfigError unless ``path`` is, or can become, a folder that files
    can be written to, and ``for_weights`` read from again. ``flag`` is the option that names it. Nothing is left
    behind."""
    if for_weights and any(unicodedata.category(character) == "Cs" for character in str(path)):
        raise ConfigError(f"{flag} {path} is no text in UTF-8, so that weights in it could not be read: give another.")
    place = path.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        shown = path if place == path.absolute() else place
        raise ConfigError(f"{flag} {path} cannot be a folder, {shown} is a file: give another.")
    try:
        # The file system's own answer: permission bits say nothing of read-only mounts or of root.
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ConfigError(f"{flag} {path} cannot be written to ({error.strerror}): give another.") from error


def short_path(path: str | os.PathLike[str]) -> str:
    """A path as cards show it: its last two names. Where they stand on this machine means nothing elsewhere, and one
    name alone may not tell two folders apart."""
    pure = Path(path)
    return "/".join([part for part in pure.parts if part not in (pure.anchor, "..")][-2:]) or "."


def without_folders(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with every path shortened: a run may go on where its files stand elsewhere."""
    return {
        key: short_path(value) if isinstance(value, str) and os.sep in value else value
        for key, value in options.items()
    }


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Decoded images side by side in one flat uint8 file.

    ``sizes`` is (N, 2), height and width; ``offsets`` (N,), where each begins; ``skipped`` the files that could not
    be read, with the reason; ``hashes`` are of the files' bytes.
    """

    pixels: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray
    skipped: tuple[tuple[str, str], ...]
    sources: tuple[str, ...]
    hashes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of the bytes of all files, whatever they are called and wherever they are."""
        return hashlib.sha256("".join(sorted(self.hashes)).encode()).hexdigest()[:_HASH]

    def __len__(self) -> int:
        return len(self.sizes)

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, a view into the file."""
        height, width = (int(v) for v in self.sizes[index])
        start = int(self.offsets[index])
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)

    @classmethod
    def open(
        cls,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        store: int = 288,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Building | None = None,
    ) -> ImageSet:
        """The set of :func:`find_images`, from the cache, which is built where it is missing or out of date.

        ``store`` bounds the shorter side of what is kept (larger images are reduced, none is enlarged). ``progress``
        is told (done, of how many) while building. A file that cannot be read is skipped and named in ``skipped``;
        ImageError only where none can. ConfigError where the cache is to be built and ``cache_dir`` cannot be written
        to.
        """
        found = find_images(source)
        # In full, as a relative path names other files elsewhere.
        identity = [(str(path.absolute()), *_size_and_time(path)) for path in found]
        text = json.dumps([_FORMAT, store, identity])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        folder = Path(cache_dir or home() / "datasets") / f"{digest}-{store}"
        if not (folder / "index.json").exists():
            require_folder(folder.parent, "--cache-dir")
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not (folder / "index.json").exists():
                    _build(folder, found, store, progress)
        try:
            return cls._read(folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageError(f"The cache of decoded images {folder} is damaged: delete that folder.") from error

    @classmethod
    def _read(cls, folder: Path) -> ImageSet:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        sizes = np.asarray(index["sizes"], dtype=np.int64).reshape(-1, 2)
        lengths = sizes.prod(1) * 3
        pixels = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="r")
        if pixels.size != lengths.sum():
            raise ValueError(pixels.size)
        offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        skipped = tuple((name, reason) for name, reason in index["skipped"])
        return cls(pixels, sizes, offsets, skipped, tuple(index["sources"]), tuple(index["hashes"]))

    def holds(self, path: Path) -> bool:
        """Return whether one of the images has the bytes of this file, whatever it is called."""
        return path.is_file() and files.sha256(path)[:_HASH] in self.hashes


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _build(folder: Path, paths: Sequence[Path], store: int, progress: Building | None) -> None:
    """Decode into a folder beside ``folder`` that takes its place: a cache is whole or absent."""
    sizes: list[tuple[int, int]] = []
    kept: list[str] = []
    hashes: list[str] = []
    skipped: list[tuple[str, str]] = []
    with files.new_folder(folder) as work:
        with (work / "pixels.bin").open("wb") as out:
            for done, path in enumerate(paths, 1):
                try:
                    array = read_reduced(path, store)
                    own = files.sha256(path)[:_HASH]
                except (ImageError, OSError) as error:
                    skipped.append((str(path), str(error)))
                else:
                    out.write(array.tobytes())
                    sizes.append((array.shape[0], array.shape[1]))
                    kept.append(str(path))
                    hashes.append(own)
                if progress is not None:
                    progress(done, len(paths))
        if not sizes:
            raise ImageError(f"None of the {len(paths)} images can be read; the first: {skipped[0][1]}")
        index = {"sizes": sizes, "sources": kept, "hashes": hashes, "skipped": skipped}
        (work / "index.json").write_text(json.dumps(index), encoding="utf-8")


def read_reduced(path: Path, side: int) -> np.ndarray:
    """An image file as (H, W, 3) uint8, its shorter side reduced to ``side``, never enlarged; ImageError as in
    :func:`zoo.images.read`."""
    picture = images.read(path).pixels
    if min(picture.shape[-2:]) > side:
        picture = images.resize(picture, f"short:{side}")
    return to_levels(picture)[0].permute(1, 2, 0).contiguous().numpy()


@dataclass(frozen=True)
class Crops:
    """Training crops: ``size`` pixels a side, at a zoom drawn from ``zoom`` = (low, high), log-uniform.

    Zoom 1 takes stored pixels as they are, 2 enlarges twice, 0.5 reduces to half. The window never leaves the image:
    one too small for it is enlarged as far as needed. ``flip`` mirrors half of the crops.
    """

    size: int
    zoom: tuple[float, float] = (1.0, 1.0)
    flip: bool = True

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.zoom[0] <= self.zoom[1]:
            raise InputError(f"Crops need a size of at least 1 and 0 < low <= high zoom, got {self}.")

    def cut(self, picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(size, size, 3) uint8 from (H, W, 3) uint8."""
        height, width = picture.shape[:2]
        zoom = math.exp(random.uniform(math.log(self.zoom[0]), math.log(self.zoom[1])))
        side = max(1, min(round(self.size / zoom), height, width))
        top = int(random.integers(0, height - side + 1))
        left = int(random.integers(0, width - side + 1))
        window = picture[top : top + side, left : left + side]
        if side != self.size:
            # Pillow's bicubic widens with the reduction, so a reduced crop does not alias.
            image = PILImage.fromarray(np.ascontiguousarray(window))
            window = np.asarray(image.resize((self.size, self.size), PILImage.Resampling.BICUBIC))
        return window[:, ::-1] if self.flip and random.random() < 0.5 else window


class Sampler:
    """Batches of one set by step number: (B, 3, size, size) uint8, channels-last in memory.

    Every image comes once before any comes again; each pass has its own order. ``rank`` of ``world`` processes share
    a step's samples without overlap.
    """

    def __init__(self, images: ImageSet, name: str, crops: Crops, *, batch_size: int, seed: int) -> None:
        self.images, self.crops, self.batch_size = images, crops, batch_size
        # Different sets must not walk in step, or content i would always meet style i.
        self._key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "little")
        self._orders: dict[int, np.ndarray] = {}
        self._places = np.arange(len(images))

    @property
    def hashes(self) -> list[str]:
        """Return the hashes of the images, in the order in which they are counted."""
        return [self.images.hashes[place] for place in self._places]

    def arrange(self, hashes: str) -> None:
        """Count the images in the order of ``hashes``, one after the other without a space: those that a set has whose
        files are called otherwise."""
        places: dict[str, list[int]] = {}
        for place in reversed(range(len(self.images))):
            places.setdefault(self.images.hashes[place], []).append(place)
        wanted = [hashes[start : start + _HASH] for start in range(0, len(hashes), _HASH)]
        self._places = np.array([places[one].pop() for one in wanted])

    def picture(self, number: int) -> np.ndarray:
        """(H, W, 3) uint8, the image counted as ``number``."""
        return self.images.image(int(self._places[number]))

    def index(self, number: int) -> int:
        """Return which image sample ``number`` shows, as it is counted."""
        epoch, place = divmod(number, len(self.images))
        if epoch not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k >= epoch - 1}
            self._orders[epoch] = np.random.default_rng((self._key, 0, epoch)).permutation(len(self.images))
        return int(self._orders[epoch][place])

    def sample(self, number: int) -> np.ndarray:
        """(size, size, 3) uint8."""
        random = np.random.default_rng((self._key, 1, number))
        return self.crops.cut(self.picture(self.index(number)), random)

    def batch(self, position: int, rank: int = 0, world: int = 1) -> Tensor:
        """Batch ``position`` of process ``rank``."""
        first = (position * world + rank) * self.batch_size
        return as_batch([self.sample(first + i) for i in range(self.batch_size)])


class Loader:
    """Batches of several sets, made ahead by one thread; ``waited`` is the seconds that training spent waiting."""

    def __init__(self, samplers: Mapping[str, Sampler], *, first: int = 0, rank: int = 0, world: int = 1) -> None:
        self._samplers, self._rank, self._world = dict(samplers), rank, world
        self._queue: queue.Queue[Any] = queue.Queue(3)
        self._closed = threading.Event()
        self.waited = 0.0
        self._thread = threading.Thread(target=self._work, args=(first,), daemon=True, name="zoo-training-data")
        self._thread.start()

    def _work(self, position: int) -> None:
        while not self._closed.is_set():
            try:
                item: Any = {k: s.batch(position, self._rank, self._world) for k, s in self._samplers.items()}
            except Exception as error:
                item = error
            while not self._closed.is_set():
                try:
                    self._queue.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if isinstance(item, Exception):
                return
            position += 1

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self

    def __next__(self) -> dict[str, Tensor]:
        began = time.perf_counter()
        item = self._queue.get()
        self.waited += time.perf_counter() - began
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        self._thread.join(timeout=5)


def as_batch(pictures: Sequence[np.ndarray]) -> Tensor:
    """Pictures (H, W, 3) uint8 of one size as (B, 3, H, W), channels-last in memory."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def to_float(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """uint8 batches as float32 in [0, 1] on ``device``, channels-last."""
    return {
        name: pixels.to(device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last).div_(255)
        for name, pixels in batch.items()
    }
