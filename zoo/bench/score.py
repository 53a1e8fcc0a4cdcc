"""The last pass of a run: metrics of the pictures, in one worker process or several at once.

Several are allowed here, where nothing is timed. They share the threads and the memory limit among them, and take the
GPUs in turns where no single one was named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from zoo.bench.ledger import Ledger, Loss
from zoo.bench.plan import Plan, Scored, SetCell
from zoo.bench.runner import Pass, Report, Setting, drive_at_once

# A metric, by its position in the protocol, of a picture or a set.
Piece = tuple[int, Scored]


class Score(Pass):
    """Score what is pending, metric by metric, in up to ``jobs`` processes; a crash costs the picture that caused it.

    A set that lacks pictures is skipped: over fewer pairs its value would be another.
    """

    stage = "score"
    module = "score"
    counted = True
    patient = True

    def __init__(self, setting: Setting, ledger: Ledger, plan: Plan, jobs: int = 1) -> None:
        super().__init__(setting, ledger, plan)
        self.jobs = jobs

    def todo(self, rows: Ledger, plan: Plan) -> list[list[Piece]]:
        """Pictures of baselines, of methods and made elsewhere, pair by pair; then sets, with how many they lack."""
        pictures = plan.baselines + [
            cell
            for method in plan.methods
            for cell in method.cells
            if (row := rows.measured(cell)) is not None and row.status == "ok"
        ]
        pictures += [cell for gallery in plan.galleries for cell in gallery.usable]
        pictures.sort(key=lambda cell: (cell.size, cell.content, cell.style))
        found: list[Piece] = [
            (metric, cell) for metric in plan.pair_metrics for cell in pictures if plan.to_score(rows, cell, metric)
        ]
        made = set(pictures)
        # Which pictures made elsewhere are there is not known yet, and the hash of their set tells when that changes.
        own = {method.label for method in plan.methods}
        for group in dict.fromkeys(plan.sets.values()):
            counted = SetCell.of(group.members, sum(cell not in made for cell in group.members))
            found += [
                (metric, counted)
                for metric in plan.set_metrics
                if plan.to_score(rows, group, metric)
                # Of other pictures than the row says, which then is written anew.
                or (
                    group.method in own
                    and (row := plan.incomplete(rows, group, metric))
                    and row.reason != counted.lacking
                )
            ]
        return [sorted(found, key=lambda one: one[0])] if found else []

    def run(self) -> None:
        """Score what is left."""
        self.score([piece for group in self.todo(self.ledger, self.plan) for piece in group])

    def score(self, pieces: Sequence[Piece]) -> None:
        """Score these."""
        self.ledger.begin(self.stage, len(pieces))
        whole = []
        for piece in pieces:
            if isinstance(piece[1], SetCell) and piece[1].missing:
                self.done(Report(piece, loss=Loss("skipped", piece[1].lacking, "input")))
            else:
                whole.append(piece)
        parts = share_out(whole, self.jobs)
        if not parts:
            return
        settings = [_part(self.setting, len(parts), i) if len(parts) > 1 else self.setting for i in range(len(parts))]
        given = [(setting, self, part) for setting, part in zip(settings, parts, strict=True)]
        with contextlib.closing(drive_at_once(given)) as reports:
            for report in reports:
                self.take(report)

    def job(self, items: Sequence[Piece]) -> dict[str, Any]:
        """Metrics with the positions of their pictures, and the pictures."""
        cells = _cells(items)
        positions = {cell: i for i, cell in enumerate(cells)}
        uses = [
            {
                "name": use.name,
                "settings": use.settings,
                "items": [positions[cell] for i, cell in items if i == number],
            }
            for number, use in enumerate(self.plan.protocol.spec.metrics)
        ]
        return {"metrics": uses, "pictures": [self.setting.files(cell) for cell in cells]}

    def about(self, event: Mapping[str, Any], items: Sequence[Piece]) -> list[Piece]:
        """A metric of one picture, or of all."""
        number, item = event["metric"], event.get("item")
        return [one for one in items if one[0] == number] if item is None else [(number, _cells(items)[item])]

    def named(self, item: Piece) -> str:
        """Metric and picture."""
        return f"{self.plan.protocol.spec.metrics[item[0]].label} of {item[1]}"

    def done(self, report: Report) -> None:
        """Write a value, or why there is none."""
        number, cell = report.item
        if report.loss is not None:
            self.ledger.score(cell, number, None, report.loss)
        elif report.event is not None:
            self.ledger.score(cell, number, report.event["value"], note=report.event.get("note", ""))


def _cells(items: Sequence[Piece]) -> list[Scored]:
    return list(dict.fromkeys(cell for _, cell in items))


def share_out(pending: Sequence[Piece], jobs: int) -> list[list[Piece]]:
    """Up to ``jobs`` parts of about as many pixels each; what is of one picture, or of one set, stays in one part."""
    cells = list(dict.fromkeys(cell for _, cell in pending))
    # Pictures of one pair stand together, and metrics remember what they computed of it: cut where the pixels are even.
    pictures = [cell for cell in cells if not isinstance(cell, SetCell)]
    sets = [cell for cell in cells if isinstance(cell, SetCell)]
    pixels = [max(cell.size, 1) ** 2 for cell in pictures]
    before = itertools.accumulate(pixels, initial=0)
    place: dict[Scored, int] = {
        cell: int((start + own / 2) * jobs / sum(pixels))
        for cell, start, own in zip(pictures, before, pixels, strict=False)
    }
    place |= {cell: i % jobs for i, cell in enumerate(sets)}
    parts: list[list[Piece]] = [[] for _ in range(jobs)]
    for number, cell in pending:
        parts[place[cell]].append((number, cell))
    return [part for part in parts if part]


def _part(setting: Setting, jobs: int, index: int) -> Setting:
    device = setting.device
    if device == "cuda":
        device = f"cuda:{index % torch.cuda.device_count()}"
    limits = setting.limits.model_copy(update={"memory": setting.limits.memory / jobs})
    return dataclasses.replace(setting, device=device, threads=max(1, setting.threads // jobs), limits=limits)
