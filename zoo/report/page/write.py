"""The folder of a page: built beside its place and moved there whole, so that a reader never sees half a page."""

from __future__ import annotations

import importlib.resources
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from zoo.bench.folder import Folder
from zoo.bench.rows import latest, read_rows
from zoo.errors import ProtocolError
from zoo.files import new_folder
from zoo.registry import load_registry
from zoo.report.figures.canvas import short_names
from zoo.report.page.content import facts, pictures_data, table_data
from zoo.report.page.courses import courses_data
from zoo.report.page.films import films_data
from zoo.report.tables import build_table, read_run

_SCRIPTS = ("style.css", "script.js")
# What a results folder holds for a reader beside its pictures: itself, its tables and its figures.
_OWN = ("*.csv", "*.md", "*.tex", "*.jsonl", "*.json", "*.jpg")
_TABLES = ("*.csv", "*.md", "*.tex", "*.bib", "*.json", "*.html")
_FIGURES = ("*.pdf", "*.png")


def write_page(
    run: Path, out: Path | None = None, *, tables: Path | None = None, names: Mapping[str, str] | None = None
) -> Path:
    """Write the page of a results folder (default: RUN/page) and return its index.html.

    The run's own files, the tables of ``tables`` (default: RUN/tables) and the figures that lie beside the page are
    copied into it for download; ``names`` are printed instead of labels. Raises ProtocolError where nothing was
    measured there, where ``out`` holds something other than a page, or where a file cannot be written.
    """
    folder = Folder(run)
    run_file = read_run(folder)
    target = run / "page" if out is None else out
    if target.exists() and any(target.iterdir()) and not (target / "script.js").is_file():
        raise ProtocolError(f"{target} holds other files than a page: choose an empty folder.")
    files = {
        "data and tables": (run, "", _OWN),
        "tables and statistics": (tables or run / "tables", "tables", _TABLES),
        "figures": (target.parent / "figures", "figures", _FIGURES),
    }
    with new_folder(target, ProtocolError) as building:
        for name in ("pictures", "thumbnails", "files"):
            (building / name).mkdir()
        downloads = _downloads(files, building)
        _build(folder, run_file, building, dict(names or {}), downloads)
    return target / "index.html"


def _build(folder: Folder, run_file: dict[str, Any], target: Path, names: dict[str, str], downloads: Any) -> None:
    registry = load_registry()
    rows = latest(read_rows(folder.rows))
    table = build_table(rows, run_file, registry)
    shown = {**short_names([line.method for line in table.lines]), **names}
    titles = {name: entry.title for name, entry in registry.metrics.items()}
    data = {
        "table": table_data(table, shown, titles),
        "pictures": pictures_data(folder, rows, run_file, table, target),
        "names": shown,
    }
    for name in _SCRIPTS:
        (target / name).write_bytes(_resource(name))
    page = _render(
        data=_script_safe(data),
        table=data["table"],
        protocol=table.protocol,
        caption=table.caption,
        notes=table.notes,
        remarks=[remark.text for remark in table.remarks],
        intervals=table.intervals,
        courses=courses_data(rows, run_file, registry),
        films=films_data(folder, rows, run_file, shown, target),
        facts=facts(run_file, table),
        resolved=json.dumps(run_file["protocol"]["resolved"], indent=2, ensure_ascii=False),
        downloads=downloads,
        missing=sum("reason" in picture for picture in data["pictures"]["outputs"]),
        count=len(data["pictures"]["outputs"]),
        changed=sum("changed" in picture for picture in data["pictures"]["outputs"]),
    )
    (target / "index.html").write_text(page, encoding="utf-8")


def _render(**values: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["short"] = _short
    environment.filters["exact"] = repr
    return environment.from_string(_resource("template.html").decode()).render(**values)


def _short(value: float | None, scale: int) -> str:
    """Four significant digits of ``value / 10**scale``, more where more stand before the point; a dash for none."""
    if value is None:
        return "–"
    shown = value / 10.0**scale
    return f"{shown:.0f}" if abs(shown) >= 1000 else f"{shown:.4g}"


def _script_safe(data: Any) -> str:
    """JSON that may stand inside a script element: no ``<``, so that no name can end it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _downloads(sources: Mapping[str, tuple[Path, str, Sequence[str]]], target: Path) -> list[dict[str, Any]]:
    """Copy into ``files/`` what a reader may want; by title: from which folder, into which, which files."""
    groups = []
    for title, (folder, place, patterns) in sources.items():
        found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
        files = []
        for path in found:
            copy = target / "files" / place / path.name
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
            address = quote(copy.relative_to(target).as_posix())
            files.append({"name": path.name, "address": address, "size": _size(path.stat().st_size)})
        if files:
            groups.append({"title": title, "files": files})
    return groups


def _size(count: int) -> str:
    return f"{count / 1024:.0f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def _resource(name: str) -> bytes:
    return (importlib.resources.files("zoo.report.page") / name).read_bytes()
