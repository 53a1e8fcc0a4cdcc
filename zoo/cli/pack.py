"""``zoo pack``: a small copy of training images, for a machine that has none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from zoo.cli.common import console, out
from zoo.cli.training import ImageOptions
from zoo.options import real, verb, whole


@dataclass(frozen=True, kw_only=True)
class PackOptions(ImageOptions):
    """Options of ``zoo pack``."""

    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The new folder to write.")]
    max_mb: Annotated[
        float, typer.Option(help="Largest size of the pack in megabytes (10^6 bytes).", **real(0.001, 1e6))
    ] = 60.0
    side: Annotated[int, typer.Option(help="Shorter side of its images, where that fits.", **whole(32, 65_500))] = 288
    with_encoder: Annotated[bool, typer.Option("--with-encoder", help="Put VGG-19's weights into the pack.")] = False


@verb
def pack(options: PackOptions) -> None:
    """Re-encode images as small JPEG files in DIR, one folder a set, which 'zoo train' takes as they are."""
    from zoo.training.pack import pack as write

    with _progress(options.quiet) as progress:
        report = write(
            options.folder,
            options.sets,
            max_mb=options.max_mb,
            side=options.side,
            with_encoder=options.with_encoder,
            progress=progress,
        )
    for name, reasons in report.skipped.items():
        for file, reason in reasons:
            console.say(f"{name}: {file} is left out: {reason}")
    out.say(report.text())


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Any]:
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
