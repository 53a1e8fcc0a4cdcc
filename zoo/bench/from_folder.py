"""Pictures made elsewhere: a folder of them is scored like a method, beside those that the harness ran itself.

A picture is found by its name, ``CONTENT__STYLE[__SIZE][__seedN][__strengthX]`` with any extension that the zoo reads
(lossless is better: what JPEG loses is scored too). CONTENT and STYLE are the names in the protocol; a part in brackets
may be left out where the protocol has one value of it. ``METHOD__`` may stand before a name with all parts, so that the
``outputs`` folder of another run can be given, if it holds one method (and baselines, which are left out).

Seen from the rows, the folder is a method of that label without speed and memory. A pair whose picture is missing is
``skipped``; a picture that cannot be read, or has not the size of its content as the protocol prepares it, is
``failed``: nothing is resized in silence. Both are tried again once the file is there or is another one. Every row
holds the sha256 of the picture's file, and a row that has a value is never replaced: other pictures need another label,
or a fresh folder.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from zoo import images
from zoo.bench.folder import Folder
from zoo.bench.ledger import Ledger, Loss
from zoo.bench.plan import Cell, SetCell, cells_of, set_cells
from zoo.bench.protocol import NAME, Baseline, Protocol, ResolvedProtocol
from zoo.download import file_sha256
from zoo.errors import ProtocolError, ZooError
from zoo.names import composed
from zoo.registry import Registry

_MISSING = "the folder has no picture of it"
# METHOD, CONTENT, STYLE, size, seed and strength: a name as the harness writes it (Cell.filename).
_PARTS = 6


@dataclass(frozen=True)
class Gallery:
    """A folder of pictures under a label: what the protocol wants, which files there are, and their sha256.

    ``unusable`` says of files why they cannot be scored; it is known once they have been taken.
    """

    label: str
    folder: Path
    cells: tuple[Cell, ...]
    files: Mapping[Cell, Path]
    hashes: Mapping[Cell, str]
    unusable: dict[Cell, str] = field(default_factory=dict)

    @property
    def usable(self) -> list[Cell]:
        """Cells whose picture can be scored."""
        return [cell for cell in self.cells if cell in self.files and cell not in self.unusable]

    def unreported(self, ledger: Ledger, metrics: Sequence[int]) -> list[Cell]:
        """Cells without a picture of which no row says so yet."""
        absent = [cell for cell in self.cells if cell not in self.files]
        return [cell for cell in absent if any(ledger.scored(cell, metric) is None for metric in metrics)]


def open_gallery(label: str, folder: Path, protocol: ResolvedProtocol, registry: Registry) -> Gallery:
    """Find and hash the pictures of a folder; ProtocolError for a label that cannot be one, a folder without any
    picture of the protocol, or two pictures of one cell."""
    if not re.fullmatch(NAME, label) or "__" in label:
        raise ProtocolError(
            f"{label!r} cannot stand for a folder of pictures: use letters, digits, '.', '-' and '_', no two '_' "
            "together."
        )
    if label.partition(".")[0] in registry.methods or label in protocol.spec.baselines:
        raise ProtocolError(f"{label} is a method of the harness: give the pictures in {folder} another name.")
    if not folder.is_dir():
        raise ProtocolError(f"{folder} is not a folder: --outputs takes NAME=FOLDER.")
    cells = cells_of(protocol, label)
    files = _find(folder, cells, protocol.spec)
    if not files:
        example = shortest_name(cells[0], protocol.spec)
        raise ProtocolError(
            f"{folder} holds no picture of protocol {protocol.spec.name}: name them CONTENT__STYLE and so on, the "
            f"first one {example}.png."
        )
    try:
        hashes = {cell: file_sha256(path) for cell, path in files.items()}
    except OSError as error:
        raise ProtocolError(f"The pictures in {folder} cannot be read: {error.strerror}.") from error
    return Gallery(label, folder, cells, files, hashes)


def _find(folder: Path, cells: Sequence[Cell], spec: Protocol) -> dict[Cell, Path]:
    named: dict[str, list[Path]] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise ProtocolError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    for path in paths:
        if path.suffix.lower() in images.READ_EXTENSIONS and path.is_file():
            stem = composed(path.stem)
            named.setdefault(stem, []).append(path)
            method, *parts = stem.rsplit("__", _PARTS - 1)
            if len(parts) == _PARTS - 1 and method not in get_args(Baseline):
                named.setdefault("__".join(parts), []).append(path)
    found: dict[Cell, Path] = {}
    for cell in cells:
        own = [path for name in _names(cell, spec) for path in named.get(name, ())]
        if len(own) > 1:
            raise ProtocolError(
                f"{folder} holds two pictures of {cell.content} x {cell.style} at {cell.size}, {own[0].name} and "
                f"{own[1].name}: keep one, and a folder per method."
            )
        if own:
            found[cell] = own[0]
    return found


def _names(cell: Cell, spec: Protocol) -> list[str]:
    """Every name that a cell's picture may have, without extension and METHOD."""
    full, needed = _optional(cell, spec), _optional(cell, spec, shortest=True)
    choices = [(True,) if part in needed else (True, False) for part in full]
    names = []
    for keep in itertools.product(*choices):
        kept = [part for part, wanted in zip(full, keep, strict=True) if wanted]
        names.append("__".join([cell.content, cell.style, *kept]))
    return names


def shortest_name(cell: Cell, spec: Protocol) -> str:
    """A cell's name with the parts alone that must be there, without extension."""
    return "__".join([cell.content, cell.style, *_optional(cell, spec, shortest=True)])


def _optional(cell: Cell, spec: Protocol, *, shortest: bool = False) -> list[str]:
    """The parts of a name after content and style; in the shortest one only those of which the protocol has several."""
    parts = (
        (f"{cell.size}", spec.sizes),
        (f"seed{cell.seed}", spec.seeds),
        (f"strength{cell.strength:g}", spec.strengths),
    )
    return [text for text, values in parts if not shortest or len(values) > 1]


def check_unchanged(gallery: Gallery, ledger: Ledger) -> None:
    """ProtocolError where a value in the rows was scored from another picture than the folder holds now."""
    scored = [*gallery.files, *(SetCell.of(group) for group in set_cells(gallery.cells))]
    for cell in scored:
        for metric in range(len(ledger.protocol.spec.metrics)):
            row, now = ledger.scored(cell, metric), ledger.picture(cell)
            if row is not None and row.status == "ok" and now is not None and row.picture != now:
                raise ProtocolError(
                    f"{gallery.folder} holds other pictures than those that {gallery.label} was scored on ({cell}): "
                    "give them another name, or set the old results aside with --fresh."
                )


def take_pictures(gallery: Gallery, folder: Folder, ledger: Ledger, metrics: Sequence[int]) -> None:
    """Copy the pictures into the results folder as PNG, and write rows of what is missing or cannot be scored.

    The prepared inputs must be there already. ``metrics`` are the positions of those that score single pictures.
    """
    todo = [cell for cell in gallery.files if not _taken(cell, gallery, folder, ledger, metrics)]
    for cell in todo:
        try:
            picture = images.read(gallery.files[cell])
            wanted = images.read(folder.input("content", cell.content, cell.size)).size
            if picture.size != wanted:
                here, there = (f"{width} x {height}" for height, width in (picture.size, wanted))
                raise ProtocolError(f"the picture is {here} pixels and its content {there}: make it that size")
        except ZooError as error:
            gallery.unusable[cell] = str(error)
            continue
        # Where it cannot be written (a full disk), nothing is wrong with it: the run ends without a row.
        images.write(folder.output(cell), picture.pixels)
    refused = [cell for cell in gallery.unusable if any(ledger.unlike(cell, metric) for metric in metrics)]
    unreported = gallery.unreported(ledger, metrics)
    ledger.begin("score", len(refused) + len(unreported))
    for cell in refused:
        ledger.miss(cell, metrics, Loss("failed", gallery.unusable[cell], "input"))
    for cell in unreported:
        ledger.miss(cell, metrics, Loss("skipped", _MISSING, "input"))


def _taken(cell: Cell, gallery: Gallery, folder: Folder, ledger: Ledger, metrics: Sequence[int]) -> bool:
    """Whether the copy in the results folder is of this very file: a value was scored from it."""
    rows = [ledger.scored(cell, metric) for metric in metrics]
    known = any(row is not None and row.status == "ok" and row.picture == gallery.hashes[cell] for row in rows)
    return known and folder.output(cell).exists()
