"""What a page shows, as plain data: the table's numbers, the score of every picture, the run's conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from zoo.bench.folder import Folder
from zoo.bench.measures import MEASURES, PRIMARY
from zoo.bench.plan import Cell
from zoo.bench.rows import Row
from zoo.download import file_sha256
from zoo.report.page.pictures import Published, publish
from zoo.report.tables import Table

# These two are the inputs themselves, which every row of pictures begins with.
_COPIES = ("content-copy", "style-copy")
CHANGED = "The file is not the one that was measured: its sha256 differs from the row's."
NOT_KEPT = (
    "The picture is not in the run's folder 'outputs', which is not kept under version control: "
    "'zoo bench --again' makes it anew, and its numbers."
)


def table_data(table: Table, names: Mapping[str, str], registry_titles: Mapping[str, str]) -> dict[str, Any]:
    """Columns that have numbers and lines with exact values; ``kind`` tells time and memory from quality.

    ``varied`` is what lines differ in, so that it needs a column; a footnote of every line stands at none.
    """
    columns: list[dict[str, Any]] = [
        {
            "metric": column.metric,
            "title": column.title,
            "unit": column.unit,
            "direction": column.direction,
            "scale": table.scale(column),
            "kind": "measure" if column.metric in MEASURES else "quality",
            "about": _about(column.metric, registry_titles),
        }
        for column in table.columns
        if column.shown and any(line.values.get(column.metric) is not None for line in table.lines)
    ]
    metrics = [column["metric"] for column in columns]
    lines = [
        {
            "method": line.method,
            "name": names.get(line.method, line.method),
            "precision": line.precision or "",
            "size": line.size,
            "strength": line.strength,
            "baseline": line.baseline,
            "failed": line.failed,
            "skipped": line.skipped,
            "notes": [note for note in line.notes if note not in table.shared],
            "family": line.family,
            "values": {metric: line.values.get(metric) for metric in metrics},
            "intervals": {
                metric: [interval.low, interval.high]
                for metric, interval in line.intervals.items()
                if metric in metrics
            },
            "best": [metric for metric in metrics if (number, metric) in table.best],
            "second": [metric for metric in metrics if (number, metric) in table.second],
        }
        for number, line in enumerate(table.lines)
    ]
    varied = {
        "precision": len({line.precision for line in table.lines if line.precision}) > 1,
        "strength": len({line.strength for line in table.lines}) > 1,
    }
    return {"columns": columns, "lines": lines, "varied": varied}


def _about(metric: str, titles: Mapping[str, str]) -> str:
    if metric in MEASURES:
        return MEASURES[metric].title
    return titles.get(metric.partition("[")[0], "")


def pictures_data(
    folder: Folder, rows: list[Row], run_file: dict[str, Any], table: Table, target: Path
) -> dict[str, Any]:
    """Every picture of the run with its scores, published under ``target``; where one is missing, the reason.

    ``inputs`` are by role, name and size, ``outputs`` by method, pair, size, seed and strength. An output has the
    ``sha256`` that the rows hold of its file and, where the file that lies there is another, ``changed``. The hash of a
    picture made elsewhere (``given``) is of the file that was handed in, not of the run's copy.
    """
    protocol = run_file["protocol"]["resolved"]
    scores: dict[tuple[Any, ...], dict[str, float]] = {}
    reasons: dict[tuple[Any, ...], str] = {}
    hashes: dict[tuple[Any, ...], str] = {}
    written = {row.method for row in rows if row.metric == PRIMARY} | set(protocol["baselines"])
    for row in rows:
        if row.content is None:
            continue
        cell = (row.method, row.content, row.style, row.size, row.seed, row.strength)
        found = scores.setdefault(cell, {})
        if row.picture is not None:
            hashes.setdefault(cell, row.picture)
        if row.value is not None:
            found[row.metric] = row.value
        elif row.metric == PRIMARY:
            reasons[cell] = f"{row.status}: {row.reason}"
    sizes = sorted({line.size for line in table.lines})
    inputs = [
        {"role": role, "name": image["name"], "size": size, **_picture(folder.input(role, image["name"], size), target)}
        for role, images in (("content", protocol["contents"]), ("style", protocol["styles"]))
        for image in images
        for size in sizes
    ]
    outputs = []
    for cell, values in scores.items():
        if cell[0] in _COPIES:
            continue
        path = folder.output(Cell(*cell))
        published = _picture(path, target)
        if "reason" in published:
            published["reason"] = reasons.get(cell, NOT_KEPT)
        if (sha256 := hashes.get(cell)) is not None:
            published["sha256"] = sha256
            if cell[0] not in written:
                published["given"] = True
            elif "reason" not in published and file_sha256(path) != sha256:
                published["changed"] = CHANGED
        names = ("method", "content", "style", "size", "seed", "strength")
        outputs.append({**dict(zip(names, cell, strict=True)), **published, "scores": values})
    return {"inputs": inputs, "outputs": outputs, "pairs": [list(pair) for pair in protocol["pairs"]]}


def _picture(path: Path, target: Path) -> dict[str, Any]:
    published: Published | None = publish(path, target)
    return {"reason": NOT_KEPT} if published is None else asdict(published)


def facts(run_file: dict[str, Any], table: Table) -> dict[str, list[tuple[str, str]]]:
    """Protocol, conditions and environment as lists of names and values."""
    identity, conditions = run_file["protocol"], run_file["conditions"]
    resolved = identity["resolved"]
    timing = resolved["timing"]
    protocol = [
        ("id", identity["id"]),
        ("what it is", identity.get("description") or "–"),
        ("pairs", str(len(resolved["pairs"]))),
        ("contents", ", ".join(image["name"] for image in resolved["contents"])),
        ("styles", ", ".join(image["name"] for image in resolved["styles"])),
        ("sizes", ", ".join(f"{size} pixels" if size else "kept" for size in resolved["sizes"])),
        ("size is of the", {"long": "longer side", "short": "shorter side"}.get(resolved["resize"], "both sides")),
        ("seeds", ", ".join(map(str, resolved["seeds"]))),
        ("strengths", ", ".join(f"{strength:g}" for strength in resolved["strengths"])),
        ("timing", ", ".join(f"{key} {value}" for key, value in timing.items())),
    ]
    measured = [(name.replace("_", " "), str(value)) for name, value in conditions.items()]
    environments = [run["environment"] for run in run_file["runs"]]
    last = environments[-1] if environments else {}
    environment = [
        (
            name.replace("_", " "),
            ", ".join(f"{k} {v}" for k, v in entry.items()) if isinstance(entry, dict) else str(entry),
        )
        for name, entry in last.items()
    ]
    runs = [
        (
            run["started"],
            f"{_minutes(run['started'], run.get('ended'))}, load {run.get('load_before')} before and "
            f"{run.get('load_after')} after",
        )
        for run in run_file["runs"]
    ]
    return {"Protocol": protocol, "Conditions": measured, "Environment": environment, "Runs": runs}


def _minutes(started: str, ended: str | None) -> str:
    if not ended:
        return "not ended"
    seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    return f"{seconds / 60:.1f} minutes"
