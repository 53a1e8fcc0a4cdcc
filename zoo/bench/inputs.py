"""The pictures that a protocol gives to methods, for one that runs elsewhere: prepared, written out, and listed.

    contents/NAME.png   styles/NAME.png    with ``__SIZE`` behind the name where the protocol has several sizes
    pairs.csv                              a line per picture that is wanted: content, style, size, seed, strength and
                                           ``result``, the name under which ``zoo bench --outputs`` finds it

They are the 8-bit pixels that methods inside the harness are given.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from torch import Tensor

from zoo import images
from zoo.bench.folder import write_text
from zoo.bench.from_folder import shortest_name
from zoo.bench.plan import cells_of
from zoo.bench.protocol import Protocol, ProtocolImage, ResolvedProtocol
from zoo.errors import ProtocolError
from zoo.imagesets import Role

LIST = "pairs.csv"
_COLUMNS: tuple[str, ...] = ("content", "style", "size", "seed", "strength", "result")


def prepared(picture: ProtocolImage, role: Role, size: int, spec: Protocol) -> Tensor:
    """An image (of a film its last frame, as of results) as the protocol prepares it, (1, 3, H, W) in [0, 1].

    Raises what :func:`zoo.images.read` does, for a film what :class:`zoo.video.clips.Clip` does.
    """
    side = spec.style_size if role == "styles" and spec.style_size is not None else size
    policy = images.SizePolicy.parse(side, default=spec.resize)
    if role == "contents" and spec.film is not None:
        from zoo.video.clips import Clip, ClipOptions

        frames = Clip(picture.source, ClipOptions(start=spec.film.start, size=policy)).frames()
        return deque(itertools.islice(frames, spec.film.frames), maxlen=1)[0].pixels
    return images.read(picture.source, size=policy).pixels


def wanted(protocol: ResolvedProtocol) -> Iterator[tuple[Role, ProtocolImage, int]]:
    """Every content and style at every size."""
    roles: tuple[tuple[Role, tuple[ProtocolImage, ...]], ...] = (
        ("contents", protocol.contents),
        ("styles", protocol.styles),
    )
    for role, pictures in roles:
        for picture in pictures:
            for size in protocol.spec.sizes:
                yield role, picture, size


def export_inputs(protocol: ResolvedProtocol, folder: Path) -> list[dict[str, str]]:
    """Write prepared contents, styles and the list of pairs into ``folder``; returns the lines of the list.

    What is there under the same names is replaced, each file in one move. Raises ImageError or ProtocolError where
    something cannot be read or written.
    """
    spec = protocol.spec

    def place(role: Role, name: str, size: int) -> str:
        return f"{role}/{name}{f'__{size}' if len(spec.sizes) > 1 else ''}.png"

    for role in get_args(Role):
        try:
            (folder / role).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProtocolError(
                f"The folder {folder / role} cannot be made ({error.strerror}): choose another one."
            ) from error
    for role, picture, size in wanted(protocol):
        images.write(folder / place(role, picture.name, size), prepared(picture, role, size, spec))
    lines = [
        {
            "content": place("contents", cell.content, cell.size),
            "style": place("styles", cell.style, cell.size),
            "size": str(cell.size),
            "seed": str(cell.seed),
            "strength": f"{cell.strength:g}",
            "result": f"{shortest_name(cell, spec)}.png",
        }
        for cell in cells_of(protocol, "")
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(folder / LIST, text.getvalue())
    return lines
