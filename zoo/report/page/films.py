"""What a page shows of films: they play beside their strips, and their errors are plotted over time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from zoo.bench.folder import Folder
from zoo.bench.measures import PRIMARY
from zoo.bench.plan import Cell
from zoo.bench.rows import Row

WIDTH, HEIGHT = 860, 180  # of a plot


def films_data(
    folder: Folder, rows: Sequence[Row], run_file: Mapping[str, Any], names: Mapping[str, str], target: Path
) -> list[dict[str, Any]]:
    """Every clip in every style with its films, copied into ``films/`` under ``target``; empty for pictures.

    A film whose files are gone (they are not under version control) is left out.
    """
    if not run_file["protocol"]["resolved"].get("film"):
        return []
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        if row.metric != PRIMARY or row.status != "ok" or row.content is None or row.style is None:
            continue
        picture = folder.output(Cell(row.method, row.content, row.style, row.size, row.seed, row.strength))
        film, series = picture.with_suffix(".mp4"), picture.with_suffix(".json")
        if film.exists() and series.exists():
            places = [_copy(path, target) for path in (film, picture.with_suffix(".jpg")) if path.exists()]
            error = json.loads(series.read_text(encoding="utf-8"))["error"]
            made = {"name": names.get(row.method, row.method), "film": places[0], "strip": places[1:], "error": error}
            groups.setdefault((row.content, row.style, row.size), []).append(made)
    return [
        {"content": content, "style": style, "films": films, **_plotted(films)}
        for (content, style, _), films in groups.items()
    ]


def _copy(path: Path, target: Path) -> str:
    copy = target / "films" / path.name
    copy.parent.mkdir(exist_ok=True)
    shutil.copyfile(path, copy)
    return quote(f"films/{path.name}")


def _plotted(films: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The largest error, the number of frames, and each film's errors as lines of an SVG, broken at cuts."""
    found = [value for film in films for value in film["error"] if value is not None]
    largest, count = max(found, default=0.0) or 1.0, max(len(film["error"]) for film in films)
    for film in films:
        pieces, pen = [], "M"
        for number, value in enumerate(film.pop("error")):
            if value is None:
                pen = "M"
                continue
            x, y = WIDTH * number / max(1, count - 1), HEIGHT * (1 - value / largest)
            pieces.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        film["path"] = " ".join(pieces)
    return {"largest": largest, "frames": count}
