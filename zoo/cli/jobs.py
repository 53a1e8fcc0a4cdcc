"""What pictures a call of ``zoo stylize`` is to make, under which names, and where their frames go."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.streams import binary_output
from zoo.errors import ImageError, InputError, reason

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Job:
    """One picture to make: its content, the styles that go into it, and where it is written."""

    content: str
    styles: tuple[str, ...]
    output: str
    label: str

    @property
    def frames(self) -> Path:
        """Return where the frames of the optimisation go: ``OUT_frames`` beside the output."""
        target = Path(self.output if self.output != "-" else "stylized.png")
        return target.with_name(f"{target.stem}_frames")


class Film:
    """Saves the frames of one run, ``OUT_frames/00050.png``, in place of those of an earlier one, which may be more."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.begun = folder, False
        self._held: int | None = None

    def __call__(self, step: int, image: Tensor) -> None:
        """Save a frame."""
        from zoo import images

        if not self.begun:
            self.clear()
            self.begun = True
        images.write(self.folder / f"{step:05d}.png", image)

    def clear(self) -> None:
        """Make the folder, and remove frames from it; ImageError where that cannot be done or another run is at it."""
        try:
            self.folder.mkdir(exist_ok=True)
            self._hold()
            for old in self.folder.iterdir():
                if re.fullmatch(r"[0-9]{5,}\.png", old.name):
                    old.unlink()
        except OSError as error:
            raise ImageError(f"The frames of --save-every cannot go into {self.folder}: {reason(error)}.") from error

    def _hold(self) -> None:
        # A lock of the folder itself ends with the process and leaves nothing behind.
        try:
            import fcntl
        except ImportError:  # Windows
            return
        self._held = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ImageError(f"Another process saves its frames into {self.folder}: give -o another name.") from None
        except OSError:  # a file system without locks
            pass

    def close(self) -> None:
        """Let others save frames there."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _names(sources: Iterable[str]) -> dict[str, str]:
    """Return what each source is called in names of results: its stem, or as much more as tells it from the others."""
    sources = list(dict.fromkeys(sources))
    paths = [Path("stdin" if source == "-" else source.removeprefix("builtin:")) for source in sources]
    names = [path.stem for path in paths]
    for longer in (lambda path: path.name, lambda path: f"{path.absolute().parent.name}_{path.name}"):
        taken = Counter(names)
        if len(taken) == len(names):
            break
        names = [longer(path) if taken[name] > 1 else name for path, name in zip(paths, names, strict=True)]
    return dict(zip(sources, names, strict=True))


def plan(
    contents: list[str], styles: list[str], method: str, output: str | None, *, joined: bool, folders: bool
) -> list[Job]:
    """Every content with every style, or with all styles together where they are mixed.

    One picture goes into a file, several, and what comes of ``folders``, into a folder, however many they are today.
    """
    from zoo.images import WRITE_FORMATS

    of_content, of_style = _names(contents), _names(styles)
    groups = [tuple(styles)] if joined else [(s,) for s in styles]
    pairs = [(c, group) for c in contents for group in groups]
    labels = [f"{of_content[c]}__{'+'.join(of_style[s] for s in group)}__{method}" for c, group in pairs]
    clash = [label for label, count in Counter(labels).items() if count > 1]
    if clash:
        raise InputError(f"Several pictures would be called {min(clash)}.png: rename the files.")
    target = Path(output or "stylized")
    a_folder = output is not None and (output.endswith("/") or target.is_dir())
    a_file = not a_folder and target.suffix.lower() in WRITE_FORMATS
    if output == "-" or (len(pairs) == 1 and not a_folder and (a_file or not folders)):
        single = output or "stylized.png"
        return [Job(c, group, single, label) for (c, group), label in zip(pairs, labels, strict=True)]
    if a_file:
        raise InputError(f"{len(pairs)} pictures cannot go into the one file {target}: give -o a folder.")
    return [Job(c, group, str(target / f"{label}.png"), label) for (c, group), label in zip(pairs, labels, strict=True)]


def shared_out(jobs: list[Job], part: str | None) -> list[Job]:
    """Those of ``jobs`` that ``part``, K/N counted from 1, is to make: whole contents, so that each is read once.

    All parts together make every picture once. Raises :class:`InputError` where ``part`` is none.
    """
    if part is None:
        return jobs
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", part)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise InputError(f"--part is K/N, the K-th of N parts such as 2/3, not {part!r}.")
    contents = {content: index for index, content in enumerate(dict.fromkeys(job.content for job in jobs))}
    return [job for job in jobs if contents[job.content] % count == number - 1]


def missing(jobs: list[Job]) -> list[Job]:
    """Those whose picture is not there yet; files are written whole or not at all."""
    return [job for job in jobs if job.output == "-" or not Path(job.output).exists()]


def write_picture(job: Job, image: Tensor | np.ndarray, alpha: Tensor | np.ndarray | None) -> None:
    """Write ``image`` where ``job`` says, standard output among the places; ImageError where that fails."""
    from zoo import images

    if job.output != "-":
        images.write(job.output, image, alpha=alpha)
        return
    data, out = images.encode(image, "png", alpha=alpha), binary_output()
    try:
        out.write(data)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ImageError(f"Standard output cannot be written ({reason(error)}): give -o a file.") from error


def summary(job: Job, method: str, size: tuple[int, int], seconds: float, seed: int, **made: Any) -> dict[str, Any]:
    """Return what ``--json`` says of a picture of ``size`` (H, W). ``made`` is what differs from a call of an exported
    network: steps and losses, strength, device and precision, tiles, options."""
    return {
        "output": job.output,
        "content": job.content,
        "styles": list(job.styles),
        "method": method,
        "width": size[1],
        "height": size[0],
        "seconds": round(seconds, 3),
        "steps": 1,
        "stopped": False,
        "losses": {},
        "strength": 1.0,
        "seed": seed,
        "device": "cpu",
        "precision": "fp32",
        "tile": None,
        "backend": "onnxruntime",
        "options": {},
        **made,
    }


def check_targets(jobs: list[Job], losses: str | None, save_every: int) -> None:
    """Refuse before the work begins what could not be written after it.

    All pictures of a call lie in one folder, so that one of them, the longest name and whatever has the name of a
    folder stand for the thousands that there may be.
    """
    from zoo import files, images

    targets = [Path(job.output) for job in jobs if job.output != "-"]
    if targets:
        folder, taken = targets[0].parent, set[str]()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise InputError(f"The folder {folder} cannot be made: {reason(error)}.") from None
        with contextlib.suppress(PermissionError), os.scandir(folder) as entries:
            taken = {entry.name for entry in entries if entry.is_dir()}
        longest = max(targets, key=lambda target: len(os.fsencode(target.name)))
        for target in {targets[0], longest, *(target for target in targets if target.name in taken)}:
            images.check_writable(target)
    for frames in {job.frames for job in jobs} if save_every else ():
        if frames.exists() and not frames.is_dir():
            raise InputError(f"{frames} is a file, and the frames of --save-every go into a folder of that name.")
    if losses:
        files.check_writable(losses, InputError)
