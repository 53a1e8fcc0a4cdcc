"""Tiny methods that behave well or badly in one way each, announced as a plugin package would be.

``install(folder)`` writes the metadata of a distribution whose entry points name these classes; with that folder on
the import path they are methods like any other, in this process and in the benchmark's workers.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.config import Config, option
from zoo.errors import UnsupportedError
from zoo.stylizer import Call, Mix, Style, Stylized, Stylizer, Traits

_SINGLE = Traits(strength="blend", min_size=8)


def install(folder: Path) -> None:
    """Write ``bench_fakes-1.dist-info`` into ``folder``."""
    info = folder / "bench_fakes-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-fakes\nVersion: 1\n")
    names = [cls.__name__ for cls in Stylizer.__subclasses__() + Tint.__subclasses__() if cls.__module__ == __name__]
    lines = [f"{name.lower()} = bench_fakes:{name}" for name in names]
    (info / "entry_points.txt").write_text("\n".join(["[zoo.methods]", *lines]) + "\n")


class Tint(Stylizer):
    """Moves every channel's mean to the style's."""

    traits = _SINGLE
    ENTRY = {  # noqa: RUF012
        "title": "Tint",
        "authors": "Nobody",
        "year": 2000,
        "paper": "https://example.org",
        "bibtex": "@misc{tint}",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "plain",
        "presets": {"plain": {"summary": "As it is."}},
    }

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        assert style.image is not None
        return {"mean": style.image.mean(dim=(2, 3), keepdim=True)}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        ((code, _),) = style
        self.misbehave(content)
        return Stylized(content + 0.5 * (code.data["mean"] - content.mean(dim=(2, 3), keepdim=True)))

    def misbehave(self, content: Tensor) -> None:
        """What sets a subclass apart."""
        print("a method may print what it likes")


class Sleepy(Tint):
    """Takes 50 ms, and notes in the file BENCH_FAKES_LOG when it slept, and how long its thread had worked by then."""

    ENTRY = {  # noqa: RUF012
        "title": "Sleepy",
        "authors": "Nobody",
        "year": 2000,
        "paper": "https://example.org",
        "bibtex": "@misc{sleepy}",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "plain",
        "presets": {"plain": {"summary": "As it is."}},
    }

    def misbehave(self, content: Tensor) -> None:
        begun = (time.perf_counter(), time.thread_time())
        time.sleep(0.05)
        ended = (time.perf_counter(), time.thread_time())
        if log := os.environ.get("BENCH_FAKES_LOG"):
            with open(log, "a") as file:
                print(*begun, *ended, file=file)


class Filter(Tint):
    """One convolution, 3 to 8 channels, and a decomposition: its operations are known in closed form."""

    ENTRY = {  # noqa: RUF012
        "title": "Filter",
        "authors": "Nobody",
        "year": 2000,
        "paper": "https://example.org",
        "bibtex": "@misc{filter}",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "plain",
        "presets": {"plain": {"summary": "As it is."}},
    }

    def _build(self) -> None:
        self.networks = {"only": torch.nn.Conv2d(3, 8, 3, padding=1)}

    def misbehave(self, content: Tensor) -> None:
        features = self.networks["only"](content)
        torch.linalg.eigh(features[0, :3, :3, 0])


class Hungry(Tint):
    """Holds 200 MiB for a moment."""

    ENTRY = {  # noqa: RUF012
        "title": "Hungry",
        "authors": "Nobody",
        "year": 2000,
        "paper": "https://example.org",
        "bibtex": "@misc{hungry}",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "plain",
        "presets": {"plain": {"summary": "As it is."}},
    }

    def misbehave(self, content: Tensor) -> None:
        torch.ones(200 * 2**20 // 4)


@dataclass(frozen=True)
class MoodyConfig(Config):
    mood: str = option("fine", "What goes wrong: load, raise, refuse, crash, weather, glutton.")
    only: str = option("", "Go wrong only on contents whose mean colour is red, green or blue; empty: always.")


class Moody(Tint):
    """Goes wrong in the way it is told to."""

    Config = MoodyConfig
    config: MoodyConfig
    ENTRY = {  # noqa: RUF012
        "title": "Moody",
        "authors": "Nobody",
        "year": 2000,
        "paper": "https://example.org",
        "bibtex": "@misc{moody}",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "raise",
        "presets": {
            "fine": {"summary": "Behaves.", "options": {"mood": "fine"}},
            "load": {"summary": "Fails to load.", "options": {"mood": "load"}},
            "raise": {"summary": "Raises on red contents.", "options": {"mood": "raise", "only": "red"}},
            "refuse": {"summary": "Refuses.", "options": {"mood": "refuse"}},
            "crash": {"summary": "Crashes on red contents.", "options": {"mood": "crash", "only": "red"}},
            "weather": {"summary": "Fails while BENCH_FAKES_MOOD is set.", "options": {"mood": "weather"}},
            "glutton": {"summary": "Takes all memory.", "options": {"mood": "glutton"}},
        },
    }

    def _build(self) -> None:
        if self.config.mood == "load":
            raise RuntimeError("the weights are upside down")

    def misbehave(self, content: Tensor) -> None:
        brightest = ("red", "green", "blue")[int(content.mean(dim=(0, 2, 3)).argmax())]
        if self.config.only not in ("", brightest):
            return
        if self.config.mood == "raise":
            raise ValueError("cannot stand red")
        if self.config.mood == "refuse":
            raise UnsupportedError("This method only does portraits.")
        if self.config.mood == "crash":
            print("about to crash")
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.config.mood == "weather" and os.environ.get("BENCH_FAKES_MOOD"):
            raise ValueError("bad weather")
        if self.config.mood == "glutton":
            hoard = []
            while True:
                hoard.append(torch.ones(16 * 2**20))
                time.sleep(0.02)


@dataclass(frozen=True)
class StepperConfig(Config):
    num_steps: int = option(5, "Steps.", ge=1)
    pause: float = option(0.01, "Seconds a step takes.", ge=0)


class Stepper(Stylizer):
    """An optimiser that moves towards the style's mean colour."""

    traits = Traits(iterative=True, source="image", strength="loss", batched=False, min_size=8)
    Config = StepperConfig
    config: StepperConfig
    ENTRY = {  # noqa: RUF012
        "title": "Stepper",
        "authors": "Nobody",
        "year": 2000,
        "paper": "https://example.org",
        "bibtex": "@misc{stepper}",
        "taxonomy": {"optimizes": "image", "styles": "any", "statistics": "parametric"},
        "default": "plain",
        "presets": {"plain": {"summary": "As it is."}},
    }

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        assert style.image is not None
        return {"mean": style.image.mean(dim=(2, 3), keepdim=True)}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        ((code, _),) = style
        image = content
        for step in range(1, self.config.num_steps + 1):
            time.sleep(self.config.pause)
            image = image + 0.1 * call.strength * (code.data["mean"] - image.mean(dim=(2, 3), keepdim=True))
            if call.report(step, self.config.num_steps, {"total": 0.0}, lambda shown=image: shown.clamp(0, 1)):
                return Stylized(image, steps=step, stopped=True)
        return Stylized(image, steps=self.config.num_steps)
