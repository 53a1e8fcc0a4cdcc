"""What belongs to the whole process is no method's to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from zoo.checks import process
from zoo.checks.core import Subject, check, require
from zoo.checks.progress import InterruptionError, interrupt


def _leaks(s: Subject) -> Mapping[str, Sequence[str]]:
    """For each kind of state, the calls that left it changed. Everything is put back."""
    found: dict[str, list[str]] = {name: [] for name in process.STATE}

    def stage(label: str, action: Callable[[], Any]) -> None:
        before = process.read()
        try:
            action()
        except InterruptionError:
            pass
        finally:
            for name in process.restore(before):
                found[name].append(label)

    with torch.enable_grad():
        stage("building", lambda: s.factory(device=s.device, precision=s.precision))
        stage("encode_style", lambda: s.model.encode_style(s.style(), s.size))
        stage("stylize", lambda: s.stylize(s.content()))
        stage("stylize, interrupted", lambda: s.stylize(s.content(), progress=interrupt))
        if s.traits.texture:
            stage("synthesize", lambda: s.model.synthesize(s.code(), s.size))
    with torch.no_grad():
        stage("stylize under no_grad", lambda: s.stylize(s.content()))
    return found


def _leaves(name: str) -> Callable[[Subject], None]:
    def test(s: Subject) -> None:
        leaks = s.once("leaks", lambda: _leaks(s))[name]
        require(not leaks, f"changed by {', '.join(leaks)}")

    return test


check("grad-mode", "Whether gradients are recorded is left as it was.")(_leaves("grad-mode"))
check("random-state", "The random state of torch, numpy and Python is left as it was.")(_leaves("random-state"))
check("threads", "The number of torch's threads is left as it was.")(_leaves("threads"))
check("defaults", "Torch's default dtype and device are left as they were.")(_leaves("defaults"))
check("backends", "cuDNN, precision, determinism and anomaly flags are left as they were.")(_leaves("backends"))
check("autocast", "Autocast is left as it was.")(_leaves("autocast"))
