"""Sets of images that published work compares on: a manifest per set ships, the images are fetched when asked.

A manifest (``benchmarks/sets`` of a checkout, ``zoo/sets`` of an installed package) lists every image with its URL,
pinned to a commit, its sha256 and, where known, its title and author. Images lie in ``ZOO_HOME/sets/NAME`` under the
names that the manifest gives them, and a benchmark reads none whose bytes are not the listed ones.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from zoo import files, shipped
from zoo.download import download, file_sha256, home, make_folder, offline
from zoo.errors import DataError, UnknownNameError, reason

Role = Literal["contents", "styles"]
State = Literal["whole", "missing", "damaged"]


class SetImage(BaseModel):
    """An image of a set: ``file`` is its path below the set's folder and below the set's ``base`` URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)
    title: str = ""
    author: str = ""
    license: str = ""

    @property
    def name(self) -> str:
        """Its name in protocols, rows and file names: the file's stem."""
        return Path(self.file).stem


class Manifest(BaseModel):
    """The schema of a manifest.

    ``base`` is the URL that every image's ``file`` is appended to, and names ``commit``; ``license`` is what the source
    states and holds for every image that states none of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    source: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    base: str = Field(pattern=r"^https://.*/$")
    license: str
    contents: tuple[SetImage, ...] = Field(min_length=1)
    styles: tuple[SetImage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if self.commit not in self.base:
            raise ValueError("base does not name the commit")
        for role, images in (("contents", self.contents), ("styles", self.styles)):
            names = [image.name for image in images]
            for name in names:
                if names.count(name) > 1 or "__" in name:
                    raise ValueError(f"{role}: {name} is listed twice, or has two underscores in a row")
        files = [image.file for image in self.images]
        if len(set(files)) < len(files):
            raise ValueError("a file is both a content and a style")
        return self

    @property
    def images(self) -> tuple[SetImage, ...]:
        """All images, contents first."""
        return self.contents + self.styles

    @property
    def bytes(self) -> int:
        """What all images take together."""
        return sum(image.bytes for image in self.images)

    @property
    def folder(self) -> Path:
        """Where the images lie, or would lie, on this machine."""
        return home() / "sets" / self.name

    def path(self, image: SetImage) -> Path:
        """Where an image lies, or would lie, on this machine."""
        return self.folder / image.file

    def url(self, image: SetImage) -> str:
        """Where an image is fetched from."""
        return self.base + image.file


def list_sets() -> list[str]:
    """Names of the sets whose manifests ship."""
    return shipped.names("sets")


def load_manifest(name: str) -> Manifest:
    """The manifest of a set; UnknownNameError where none ships, DataError where it is malformed."""
    if name not in list_sets():
        raise UnknownNameError("image set", name, list_sets(), "Run 'zoo data list' for all.")
    return _read(shipped.folder("sets") / f"{name}.yaml")


@functools.cache
def _read(path: Path) -> Manifest:
    return shipped.read(path, Manifest, DataError)


def state(manifest: Manifest, image: SetImage) -> State:
    """Whether an image is on this machine and whole, by its sha256."""
    path = manifest.path(image)
    if not path.is_file():
        return "missing"
    return "whole" if _is(path, image) else "damaged"


def present(manifest: Manifest) -> int:
    """How many images of a set are here, by their size in bytes alone."""
    places = ((image, manifest.path(image)) for image in manifest.images)
    return sum(path.is_file() and path.stat().st_size == image.bytes for image, path in places)


def set_image(manifest: Manifest, image: SetImage) -> Path:
    """The file of an image of a set, checked; DataError, with the line that fetches the set, where it is not there."""
    path = manifest.path(image)
    found = state(manifest, image)
    if found == "missing":
        here = present(manifest)
        much = f"{here} of its {len(manifest.images)} images are" if here else "is not"
        raise DataError(
            f"The image set {manifest.name} ({manifest.bytes / 1e6:.0f} MB) {much} on this machine: run 'zoo data "
            f"fetch {manifest.name}'."
        )
    if found == "damaged":
        raise DataError(
            f"{path} is not the image that the set {manifest.name} lists (sha256 differs): run 'zoo data fetch "
            f"{manifest.name}'."
        )
    return path


def fetch_set(
    manifest: Manifest,
    source: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Bring what is missing or damaged of a set, by download or from the folder ``source``; returns how many images.

    In ``source`` an image lies where the manifest says, or anywhere else under whatever name: its sha256 decides.
    What an earlier attempt brought is kept, an image appears only once it is whole, and processes that want the same
    set wait for one another. ``progress`` is told (bytes here, of how many). Raises DataError where ``ZOO_OFFLINE``
    forbids fetching, an image cannot be fetched or is another one, ``source`` lacks one, or nothing can be written.
    """
    from filelock import FileLock

    try:
        if not _wanted(manifest):  # in a folder that others keep, perhaps, where nothing can be written
            progress(manifest.bytes, manifest.bytes)
            return 0
        make_folder(manifest.folder, "ZOO_HOME", DataError)
        with FileLock(manifest.folder / ".lock"):
            wanted = _wanted(manifest)
            done = manifest.bytes - sum(image.bytes for image in wanted)
            progress(done, manifest.bytes)
            for image, bring in _ways(manifest, wanted, source):
                before = done
                bring(lambda come, _, before=before: progress(before + come, manifest.bytes))
                done += image.bytes
                progress(done, manifest.bytes)
            return len(wanted)
    except OSError as error:
        raise DataError(
            f"The image set {manifest.name} cannot be kept in {manifest.folder}: {error.strerror}."
        ) from error


def _wanted(manifest: Manifest) -> list[SetImage]:
    return [image for image in manifest.images if state(manifest, image) != "whole"]


_Bring = Callable[[Callable[[int, int], None]], None]


def _ways(manifest: Manifest, wanted: list[SetImage], source: Path | None) -> Iterator[tuple[SetImage, _Bring]]:
    """How each image is brought; with a folder, all are found in it before the first is copied."""
    if source is not None:
        for image, path in _find(manifest, wanted, source):
            yield image, lambda told, image=image, path=path: _copy(path, manifest.path(image))
        return
    for image in wanted:
        if offline():
            raise DataError(
                f"The image set {manifest.name} is not whole on this machine and ZOO_OFFLINE forbids fetching it: "
                "unset it, or take the images from a folder with --from."
            )
        yield image, functools.partial(_download, manifest, image)


def _download(manifest: Manifest, image: SetImage, progress: Callable[[int, int], None]) -> None:
    what = f"The image {image.file} of the set {manifest.name}"
    url, path = manifest.url(image), manifest.path(image)
    download(what, url, path, size=image.bytes, sha256=image.sha256, error=DataError, progress=progress)


def _find(manifest: Manifest, wanted: list[SetImage], source: Path) -> list[tuple[SetImage, Path]]:
    if not source.is_dir():
        raise DataError(f"{source} is not a folder: name the one that holds the images of {manifest.name}.")
    sizes = {image.bytes for image in wanted}
    by_hash: dict[str, Path] = {}
    for path in sorted(_files(source)):
        # Only a file of the right length can be one of the images, so no other is read.
        try:
            if path.is_file() and path.stat().st_size in sizes:
                by_hash.setdefault(file_sha256(path), path)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({reason(error)}): check its permissions.") from error
    lacking = [image for image in wanted if image.sha256 not in by_hash]
    if lacking:
        other = [image.file for image in lacking if (source / image.file).is_file()]
        why = f"{other[0]} there is another picture" if other else f"such as {lacking[0].file}"
        raise DataError(f"{source} lacks {len(lacking)} of the images of {manifest.name}: {why}.")
    return [(image, by_hash[image.sha256]) for image in wanted]


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, those behind links too; no folder is entered twice, so that links in a circle end."""
    entered: set[str] = set()
    for place, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:
            inner.clear()
            continue
        entered.add(real)
        yield from (Path(place, name) for name in names)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(target, DataError) as work:
        shutil.copyfile(source, work)


def _is(path: Path, image: SetImage) -> bool:
    return path.stat().st_size == image.bytes and file_sha256(path) == image.sha256
