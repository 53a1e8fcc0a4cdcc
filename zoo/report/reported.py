"""Figures quoted from the literature (reported.yaml), beside what differs from the run: never inside its columns.

A quoted figure may be set beside a measured one only where images, size, metric and weights are the same; everything
that is not the same, or not known to be, is named.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from zoo.bench.measures import MEASURES
from zoo.bench.rows import Row, latest
from zoo.registry import Registry, Strict, read_yaml
from zoo.report.bibliography import image_sets
from zoo.report.forms import MISSING, Entry, Form, Group, Heading
from zoo.report.present import Sheet
from zoo.words import counted

_FILE = Path(__file__).with_name("reported.yaml")


class QuotedMetric(Strict):
    """How a metric was computed there; ``ours`` is the zoo's label of the same definition, if it is one."""

    how: str
    ours: str | None = None


class Source(Strict):
    """One table of one source."""

    title: str
    where: str
    set: str
    listed: bool = True
    size: int | None = None
    metrics: dict[str, QuotedMetric]
    rows: dict[str, dict[str, Annotated[str, Field(pattern=r"^[0-9]+\.?[0-9]*$")]]]


class _File(Strict):
    version: Literal[1] = Field(alias="schema")
    sources: dict[str, Source]


@functools.cache
def sources() -> dict[str, Source]:
    """All sources by their keys."""
    return _File.model_validate(read_yaml(_FILE)).sources


def differences(
    source: Source, method: str, rows: Iterable[Row], run_file: dict[str, Any], registry: Registry
) -> list[str] | None:
    """What keeps a source's figures of a method from standing beside the run's: empty where nothing does.

    None where the run did not measure the method.
    """
    own = [row for row in rows if row.method.partition("[")[0].partition(".")[0].lower() == method.lower()]
    if not own:
        return None
    found = []
    if other := _other_images(source, run_file):
        found.append(other)
    # The largest size that fits is of no picture.
    sizes = {row.size for row in own if row.metric not in MEASURES or row.content is not None}
    if source.size is None:
        found.append("size not stated there")
    elif sizes != {source.size}:
        found.append(f"size {source.size} there")
    kinds = set()
    for label in {row.method.partition("[")[0] for row in own}:
        if label.partition(".")[0] not in registry.methods:
            kinds.add("unknown")
            continue
        checkpoint = registry.resolve(label).checkpoint
        kinds.add(checkpoint.provenance.kind if checkpoint is not None else "published")
    if "unknown" in kinds:
        found.append("pictures made elsewhere here, with weights that nothing tells")
    if kinds - {"published", "unknown"}:
        found.append("weights trained by the zoo here")
    precisions = sorted({row.precision for row in own if row.precision} - {"fp32"})
    if precisions:
        found.append(f"{' and '.join(precisions)} here, precision not stated there")
    measured = {row.metric for row in own if row.status == "ok"}
    for name in source.rows[method]:
        metric = source.metrics[name]
        if metric.ours is None:
            found.append(f"{name}: {metric.how}")
        elif metric.ours not in measured:
            found.append(f"{name}: there {metric.how}, not measured here")
    return found


def _other_images(source: Source, run_file: dict[str, Any]) -> str:
    """What keeps the run's images from being those of the source: empty where it took every pair of the set alone."""
    from zoo.imagesets import list_sets, load_manifest

    if not source.listed or source.set not in list_sets() or image_sets(run_file) != [source.set]:
        return "other images"
    manifest = load_manifest(source.set)
    taken = len(run_file["protocol"]["resolved"]["pairs"])
    there = len(manifest.contents) * len(manifest.styles)
    return "" if taken == there else f"{taken} of its {counted(there, 'pair')} here"


def reported(rows: Iterable[Row], run_file: dict[str, Any], registry: Registry) -> Sheet:
    """The quoted figures, a group per source, and what keeps them from standing beside the run's."""
    counted = latest(rows)
    metrics = list(dict.fromkeys(name for source in sources().values() for name in source.metrics))
    groups: list[Group] = []
    foot: list[str] = []
    records: list[dict[str, Any]] = []
    for key, source in sources().items():
        entries = []
        for method, values in source.rows.items():
            reasons = differences(source, method, counted, run_file, registry)
            verdict = "not measured here" if reasons is None else "not comparable" if reasons else "comparable"
            notes: tuple[int, ...] = ()
            if reasons:
                foot.append(f"{method}: {'; '.join(reasons)}.")
                notes = (len(foot),)
            cells = [Entry(values[name]) if name in values else Entry(MISSING) for name in metrics]
            entries.append([Entry(method), *cells, Entry(verdict, notes=notes)])
            records += [
                {
                    "source": key,
                    "title": source.title,
                    "method": method,
                    "metric": name,
                    "value": float(value),
                    "how": source.metrics[name].how,
                    "beside_ours": verdict,
                    "differs": "; ".join(reasons or ()),
                }
                for name, value in values.items()
            ]
        size = f", {source.size} pixels" if source.size else ""
        groups.append(Group(f"{source.title} ({source.where}); images: {source.set}{size}", entries))
    headings = [Heading("method", False), *(Heading(name) for name in metrics), Heading("beside ours", False)]
    said = [
        "Quoted, not measured; read in public files that quote the source. Figures of different sources differ by up "
        "to a factor of two for one network, so none may be mixed with another's."
    ]
    return Sheet.of(Form("reported", "Figures reported in the literature", headings, groups, foot, said), records)
