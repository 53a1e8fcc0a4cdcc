"""Pictures and numbers taken over from another results folder, so that metrics can be added without stylising again.

Two protocols that differ in their name, metrics and sanity rows alone have the same pictures and the same timings. A
run under one of them may take both from a folder of the other, and the values of metrics that are the same in both; all
that is left to do is to score. Rows keep the run they were measured in, and run.json keeps the entries of those runs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.bench.folder import Folder, check_same, place
from zoo.bench.measures import MEASURES, PRIMARY
from zoo.bench.plan import Cell, MethodPlan, of_run
from zoo.bench.protocol import ResolvedProtocol
from zoo.bench.rows import Row, latest, read_rows
from zoo.download import file_sha256
from zoo.errors import ProtocolError

# What a protocol may differ in and still have the same pictures.
_SCORING = frozenset({"name", "metrics", "baselines"})


def take(
    source: Path,
    protocol: ResolvedProtocol,
    conditions: Mapping[str, Any],
    plans: Sequence[MethodPlan],
    folder: Folder,
    run_file: dict[str, Any],
) -> list[Row]:
    """Bring the pictures of ``plans`` from ``source`` into ``folder`` and return the rows that belong to them.

    Pictures that ``folder`` has rows of already stay its own, with their rows. ``run_file`` (of ``folder``) takes the
    entries of the runs that the rows were measured in. ProtocolError where ``source`` is ``folder``, holds no results,
    was measured under a protocol that gives other pictures, under other conditions or with
    other weights, or no longer has the pictures that its rows tell of; nothing has been written then.
    """
    other = Folder(source)
    if source.resolve() == folder.path.resolve():
        raise ProtocolError(
            f"Results cannot be taken over from the folder they go into: choose another --out than {source}."
        )
    found = other.read_run() if source.is_dir() else None
    if found is None:
        raise ProtocolError(f"{source} holds no results to take over.")
    theirs = found["protocol"]["resolved"]
    ours = json.loads(json.dumps(protocol.data))  # as it would be read from run.json
    differing = sorted(key for key in {**theirs, **ours}.keys() - _SCORING if theirs.get(key) != ours.get(key))
    if differing:
        raise ProtocolError(
            f"{source} was measured under {found['protocol']['id']}, which differs from {protocol.id} in "
            f"{', '.join(differing)}: its pictures are not those of this protocol."
        )
    check_same(found["conditions"], conditions, source)
    weights = {plan.label: plan.checkpoint for plan in plans}
    scored = {*weights, *protocol.spec.baselines}
    metrics = zip(protocol.spec.metrics, ours["metrics"], strict=True)
    alike = {use.label for use, entry in metrics if entry in theirs["metrics"]}
    # Measures of the methods and of the machine, and values of the metrics that both protocols have.
    rows = [
        row
        for row in latest(read_rows(other.rows))
        if (row.metric in MEASURES and (row.method in weights or of_run(row)))
        or (row.metric in alike and row.method in scored and row.status == "ok")
    ]
    own = {Cell.of(row) for row in latest(read_rows(folder.rows)) if row.metric == PRIMARY}
    # A set's value is of all its pictures.
    sets = {(cell.method, cell.size, cell.seed, cell.strength) for cell in own}
    rows = [
        row
        for row in rows
        if row.method not in weights
        or (row.metric in MEASURES and row.content is None)
        or (Cell.of(row) not in own if row.content is not None else _set_of(row) not in sets)
    ]
    for row in rows:
        if row.status == "ok" and weights.get(row.method, row.checkpoint) != row.checkpoint:
            raise ProtocolError(f"{source} holds results of {row.method} with other weights than it has now.")
    cells = {Cell.of(row): row.picture for row in rows if row.metric == PRIMARY and row.status == "ok"}
    gone = [cell for cell, picture in cells.items() if not _unchanged(other.output(cell), picture)]
    if gone:
        raise ProtocolError(
            f"{source} no longer has {len(gone)} of its {len(cells)} pictures as they were measured "
            f"({other.output(gone[0])}, for one): without them nothing can be scored."
        )
    for cell in cells:
        # A file of that name here has no row: a run that was killed left it.
        for path in other.made(cell):
            place(path, folder.outputs / path.name, replace=True)
    present = {entry["run_id"] for entry in run_file["runs"]}
    measured = {row.run_id for row in rows}
    run_file["runs"] += [
        {**entry, "taken_from": found["protocol"]["id"]}
        for entry in found["runs"]
        if entry["run_id"] in measured - present
    ]
    return [dataclasses.replace(row, protocol=protocol.id) for row in rows]


def _set_of(row: Row) -> tuple[str, int, int, float]:
    return (row.method, row.size, row.seed, row.strength)


def _unchanged(path: Path, sha256: str | None) -> bool:
    return path.is_file() and file_sha256(path) == sha256
