"""What a run writes down: rows with everything filled in, and where the run stands for whoever watches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zoo.bench.measures import MEASURES, PRIMARY
from zoo.bench.plan import Cell, MethodPlan, RunCell, Scored, SetCell
from zoo.bench.protocol import ResolvedProtocol
from zoo.bench.rows import Cause, Row, RowStore, Status, utc_now
from zoo.registry import Registry

Stage = Literal["measure", "score"]


@dataclass(frozen=True)
class Event:
    """Where a run stands: ``done`` of ``total`` pieces of work in a stage, what comes now, and what went wrong."""

    stage: Stage
    done: int
    total: int
    label: str
    problem: str = ""


@dataclass(frozen=True)
class Loss:
    """Why there is no number: ``skipped`` where it cannot be had here, ``failed`` where it should have been."""

    status: Status
    reason: str
    cause: Cause

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Loss:
        """A worker's ``refused`` or ``failed``."""
        return cls("skipped" if event["event"] == "refused" else "failed", event["reason"], event["cause"])

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


class Ledger:
    """Turns what workers report into rows of one run; the only writer of the store.

    ``pictures`` holds the sha256 of files that were made elsewhere (:mod:`zoo.bench.from_folder`), ``drawn`` that of
    the sanity rows' files, by their cells.
    """

    def __init__(
        self,
        store: RowStore,
        protocol: ResolvedProtocol,
        plans: Iterable[MethodPlan],
        registry: Registry,
        run_id: str,
        on_event: Callable[[Event], None],
    ) -> None:
        self.store, self.protocol, self.registry = store, protocol, registry
        self.run_id, self.on_event = run_id, on_event
        self.plans = {plan.label: plan for plan in plans}
        self.pictures: dict[Cell, str] = {}
        self.drawn: dict[Cell, str] = {}
        self.written = 0
        self._stage: Stage = "measure"
        self._done = self._total = 0

    # -- what there is already ---------------------------------------------------------------------------------

    def measured(self, cell: Cell) -> Row | None:
        """The row that says how measuring a cell went."""
        return self.store.get(cell.key(PRIMARY))

    def scored(self, cell: Scored, metric: int) -> Row | None:
        """The row of a metric of the protocol, by its position."""
        return self.store.get(cell.key(self.protocol.spec.metrics[metric].label))

    def picture(self, cell: object) -> str | None:
        """The sha256 of a cell's file, of a set that of all its files' together; None for what the harness made."""
        if isinstance(cell, SetCell):
            hashes = [self.pictures.get(member) for member in cell.members]
            return hashlib.sha256("".join(map(str, hashes)).encode()).hexdigest() if all(hashes) else None
        return self.pictures.get(cell) if isinstance(cell, Cell) else None

    def unlike(self, cell: Scored, metric: int) -> bool:
        """Whether a metric has no row of a cell, or one without value of another picture than there is now."""
        row = self.scored(cell, metric)
        return row is None or (row.status != "ok" and row.picture != self.picture(cell))

    # -- new rows ----------------------------------------------------------------------------------------------

    def record(self, cell: Cell | RunCell, precision: str | None, measured: Iterable[Mapping[str, Any]]) -> None:
        """A cell's numbers (or a process's), the one that says that the cell is done last."""
        self._write(
            self._row(
                cell,
                number["metric"],
                number["unit"],
                precision=precision,
                value=number["value"],
                samples=tuple(number["samples"]),
                reason=number.get("reason", ""),
                picture=number.get("picture"),
            )
            for number in sorted(measured, key=lambda number: number["metric"] == PRIMARY)
        )

    def refuse(self, cell: Cell, loss: Loss, precision: str | None) -> None:
        """A cell that gave no numbers, and why; it counts as done."""
        self.lack(cell, PRIMARY, loss, precision)
        self.advance(str(cell), f"{cell}: {loss}")

    def lack(self, cell: Cell | RunCell, metric: str, loss: Loss, precision: str | None) -> None:
        """A measure that could not be taken, and why."""
        self._write([self._row(cell, metric, MEASURES[metric].unit, precision=precision, loss=loss)])

    def score(self, cell: Scored, metric: int, value: float | None, loss: Loss | None = None, note: str = "") -> None:
        """A metric's value of a cell or set, or why there is none; it counts as done.

        ``note`` is what must be said with a value.
        """
        use = self.protocol.spec.metrics[metric]
        measured = self.measured(cell.members[0] if isinstance(cell, SetCell) else cell)
        row = self._row(
            cell,
            use.label,
            self.registry.metric(use.name).unit,
            precision=measured.precision if measured else None,
            value=value,
            reason=note,
            loss=loss,
            # Not beside a failure: such a row is of another file only where the file came from elsewhere (unlike).
            picture=self.drawn.get(cell) if isinstance(cell, Cell) and loss is None else None,
        )
        self._write([row])
        what = f"{use.label} of {cell}"
        self.advance(what, f"{what}: {loss}" if loss else "")

    def miss(self, cell: Cell, metrics: Iterable[int], loss: Loss) -> None:
        """A picture made elsewhere that cannot be scored, and why; it counts as one piece of work."""
        uses = [self.protocol.spec.metrics[metric] for metric in metrics]
        units = [self.registry.metric(use.name).unit for use in uses]
        self._write(
            self._row(cell, use.label, unit, precision=None, loss=loss) for use, unit in zip(uses, units, strict=True)
        )
        self.advance(str(cell), f"{cell}: {loss}")

    def _write(self, rows: Iterable[Row]) -> None:
        self.written += len(self.store.append(rows))

    def _row(
        self,
        cell: Scored | RunCell,
        metric: str,
        unit: str,
        *,
        precision: str | None,
        value: float | None = None,
        reason: str = "",
        loss: Loss | None = None,
        samples: tuple[float, ...] = (),
        picture: str | None = None,
    ) -> Row:
        plan = self.plans.get(cell.method)
        process = metric in MEASURES and MEASURES[metric].process
        return Row(
            run_id=self.run_id,
            protocol=self.protocol.id,
            method=cell.method,
            checkpoint=plan.checkpoint if plan else None,
            encoder=plan.encoder if plan else None,
            precision=precision,
            content=None if process else cell.content,
            style=None if process else cell.style,
            size=cell.size,
            seed=self.protocol.spec.seeds[0] if process else cell.seed,
            strength=1.0 if process else cell.strength,
            metric=metric,
            value=value,
            unit=unit,
            status=loss.status if loss else "ok",
            reason=loss.reason if loss else reason,
            cause=loss.cause if loss else None,
            utc=utc_now(),
            samples=samples,
            picture=picture or self.picture(cell),
        )

    # -- for whoever watches -----------------------------------------------------------------------------------

    def begin(self, stage: Stage, total: int) -> None:
        """A stage of ``total`` pieces of work begins."""
        self._stage, self._done, self._total = stage, 0, total

    def tell(self, label: str) -> None:
        """What is being done now."""
        self.on_event(Event(self._stage, self._done, self._total, label))

    def advance(self, label: str, problem: str = "") -> None:
        """One piece of work is done."""
        self._done += 1
        self.on_event(Event(self._stage, self._done, self._total, label, problem))
