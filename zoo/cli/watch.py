"""``zoo stylize --watch``: a folder whose pictures are stylised as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.common import StopRequest, refuse_restylizing
from zoo.cli.jobs import Job
from zoo.errors import ImageError, InputError, reason
from zoo.names import on_disk

if TYPE_CHECKING:
    from zoo.cli.stylize import StylizeOptions

# Seconds between two looks. A file counts once it is the same at both: one that is still being copied is not read.
PAUSE = 0.5
# What is written once, at the end of a call, or stands for contents that are known beforehand.
_OF_A_WHOLE = ("content", "content_dir", "content_labels", "sheet", "losses", "part", "as_json")


def check_watch(options: StylizeOptions, styles: Sequence[str]) -> None:
    """Raise InputError where ``options`` name what does not go with watching, or a folder that cannot be watched, or
    one for the results that is among ``styles``."""
    clash = [name for name in _OF_A_WHOLE if getattr(options, name)]
    if clash:
        flag = "json" if clash[0] == "as_json" else clash[0].replace("_", "-")
        raise InputError(f"--watch makes pictures as contents come: leave --{flag} out.")
    folder, target = on_disk(str(options.watch)), on_disk(options.output or "stylized")
    if not folder.is_dir():
        raise InputError(f"--watch takes a folder, and {folder} is none.")
    if options.output == "-" or (target.suffix and not target.is_dir()):
        raise InputError("--watch makes any number of pictures: give -o a folder.")
    refuse_restylizing(target, [str(folder)], styles)


def arrivals(folder: str, stop: StopRequest) -> Iterator[tuple[list[str], set[str]]]:
    """Give all pictures of ``folder``, and which of them are new or changed, whenever some are; until ``stop``.

    Raises ImageError where the folder can be read no longer.
    """
    before: dict[str, tuple[int, int]] = {}
    given: dict[str, tuple[int, int]] = {}
    while not stop.asked:
        now = _look(on_disk(folder))
        new = {path for path, state in now.items() if before.get(path) == state != given.get(path)}
        given |= {path: now[path] for path in new}
        before = now
        if new:
            yield list(now), new
        else:
            time.sleep(PAUSE)


def outdated(jobs: list[Job]) -> list[Job]:
    """Return those whose picture is not there, or older than its content."""
    return [job for job in jobs if not _age(job.output) > _age(job.content)]


def _age(path: str) -> float:
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return 0.0


def _look(folder: Path) -> dict[str, tuple[int, int]]:
    """The pictures of ``folder`` with their size in bytes and time of change."""
    from zoo.images.folders import scan

    found = {}
    try:
        for _, path in scan(folder)[0]:
            state = path.stat()
            found[str(path)] = state.st_size, state.st_mtime_ns
    except FileNotFoundError:  # moved away between the two calls; the next look has it right
        if folder.is_dir():
            return {}
        raise ImageError(f"The folder {folder} is gone.") from None
    except OSError as error:
        raise ImageError(f"The folder {folder} cannot be read: {reason(error)}.") from error
    return dict(sorted(found.items()))
