"""Where a run stands, who is told, and what it left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class TrainState:
    """The state of a run. ``seconds`` of training (preparation counted, pauses of the process left out), ``loading``
    the share of them spent waiting for images, ``losses`` of the latest update read, ``figures`` of the latest
    evaluation, ``minutes`` the time limit."""

    step: int
    steps: int
    seconds: float
    loading: float
    losses: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    lr: float = 0.0
    minutes: float | None = None


class TrainProgress(Protocol):
    """Told every ``log_every`` updates, and of slow ones sooner where one process works alone; returning True ends the
    run cleanly at a checkpoint. Long preparations tell of step 0; True is then a KeyboardInterrupt."""

    def __call__(self, state: TrainState, /) -> bool | None: ...


@dataclass(frozen=True)
class TrainResult:
    """The end of a run: its folder, the state it ended in, and why it ended (``steps``, ``time`` or ``asked``)."""

    folder: Path
    state: TrainState
    ended: str
