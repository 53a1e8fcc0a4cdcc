"""One method on films, told and heard as :mod:`zoo.bench.workers.measure` is.

A cell is a clip in a style. Beside its picture, the last frame, lie the film (``.mp4``), a strip of frames with what is
known of their motion (``.jpg``), and ``.json`` with what the page plots: the error of every frame. The numbers:

    film.short, film.long   warping errors to the frame before, and to the one ``long`` frames before
    film.gram_loss, film.gram_change   style loss, and how much of it neighbors differ by
    film.perceptual         distance of neighbors by ST-LPIPS, where the package that brings its weights is installed
    film.trusted            pixels that ``warp`` carried on
    film.rate               frames a second, from opening the clip to the finished film, motion and encoding included,
                            after warm-up calls on the first frame
    seconds.stylize         seconds between two frames, median
    memory.*                as zoo.bench.workers.measure, without the clip that the harness keeps to judge by
"""

from __future__ import annotations

import itertools
import json
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.bench.workers.common import Channel, UnwritableError, measurement, prepare, run_cells, warm_up, work
from zoo.errors import DataError, DownloadRequiredError, ImageError, InputError
from zoo.words import counted

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.stylizer import Stylizer
    from zoo.video.measure import Link

# Of the networks behind style loss and ST-LPIPS, which take longer than most methods, only every so many pairs of
# neighboring frames are seen.
_EVERY = 4
_STRIP_FRAMES, _STRIP_WIDTH = 7, 176  # as many as fit a page, wide enough to tell ghosts
SANITY = ("content-copy", "frozen-frame")


def main() -> None:
    """Run the job that stands on standard input."""
    channel = Channel()
    if channel.job["name"] not in SANITY:
        work(channel, _Session)
        return
    _, idle = prepare(channel.job)
    import torch

    channel.send("loaded", precision=None, measured=[])
    run_cells(channel, torch.device("cpu"), _Session(channel.job, None, idle).measure)
    channel.send("done")


class _Session:
    """The films of one job; ``model`` is None for the sanity rows."""

    def __init__(self, job: Mapping[str, Any], model: Stylizer | None, idle: int) -> None:
        import torch

        self.job, self.model, self.idle = job, model, idle
        self.device = model.device if model is not None else torch.device("cpu")
        self.film: Mapping[str, Any] = job["film"]

    def measure(self, cell: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The numbers of a cell; picture, film and series are on disk then."""
        from zoo import files, images
        from zoo.bench import memory
        from zoo.bench.measures import PRIMARY
        from zoo.download import file_sha256
        from zoo.video import measure

        output = Path(cell["output"])
        contents = list(self._contents(cell))
        if len(contents) < self.film["frames"]:
            raise InputError(
                f"{cell['name']} has {counted(len(contents), 'frame')} from second {self.film['start']:g} on, "
                f"and the protocol takes {self.film['frames']}."
            )
        style = images.read(cell["style"]).pixels
        if self.model is not None:
            code = self.model.encode_style(style, (contents[0].shape[-2], contents[0].shape[-1]))
            warm_up(self.model, contents[0], code, cell, self.job["timing"]["warmup"])
            del code
        with memory.peak(self.device) as peak:
            begun = time.perf_counter()
            frames, carried, seconds = self._make(cell, style, output.with_suffix(".mp4"))
            whole = time.perf_counter() - begun
        short = measure.links(contents)
        result = self._judged(contents, frames, style, short)
        if self.model is not None:
            result.append(measurement("film.rate", len(frames) / whole, "1/s"))
            kept = self.idle + sum(frame.nbytes for frame in contents)
            result.append(measurement("memory.resident", (peak.resident - kept) / memory.MIB, "MiB"))
            if peak.cuda_allocated is not None:
                result.append(measurement("memory.cuda_allocated", peak.cuda_allocated / memory.MIB, "MiB"))
        if carried:
            share = statistics.fmean(float(one.mean()) for one in carried.values())
            result.append(measurement("film.trusted", 100 * share, "%"))
        error = dict(zip((link.late for link in short), measure.errors(frames, short), strict=True))
        series = {"error": [error.get(number) for number in range(len(frames))]}
        known = {link.late: link for link in short} if self.job["name"] == "content-copy" else carried
        try:
            images.write(output.with_suffix(".jpg"), _strip(frames, known), quality=85)
            written = images.write(output, frames[-1])
            files.write(output.with_suffix(".json"), json.dumps(series), DataError)
        except (ImageError, DataError) as failure:
            raise UnwritableError(str(failure)) from failure
        picture = {"picture": file_sha256(written)}
        return [*result, measurement(PRIMARY, statistics.median(seconds), "s") | picture]

    def _contents(self, cell: Mapping[str, Any]) -> Iterator[Tensor]:
        from zoo.images import SizePolicy
        from zoo.video.clips import Clip, ClipOptions

        policy = SizePolicy.parse(cell["size"], default=self.film["resize"])
        clip = Clip(self.film["clips"][cell["name"]], ClipOptions(start=self.film["start"], size=policy))
        for frame in itertools.islice(clip.frames(), self.film["frames"]):
            yield frame.pixels

    def _make(
        self, cell: Mapping[str, Any], style: Tensor, target: Path
    ) -> tuple[list[Tensor], dict[int, Tensor], list[float]]:
        """Frames from the clip to the film: the frames, what each carries on of the one before, seconds of each."""
        from fractions import Fraction

        from zoo.controls.video import Video, VideoFrame
        from zoo.video.ahead import Ahead, Behind
        from zoo.video.film import Film

        target.unlink(missing_ok=True)
        shutil.rmtree(target.with_name(target.name + ".parts"), ignore_errors=True)  # of a run that was killed
        contents = Ahead(self._contents(cell))
        first = next(contents)
        size = (first.shape[-2], first.shape[-1])
        contents_again = itertools.chain([first], contents)
        if self.model is None:
            stream: Iterator[VideoFrame] = (
                VideoFrame(first if self.job["name"] == "frozen-frame" else frame) for frame in contents_again
            )
        else:
            code = self.model.encode_style(style, size)
            video = Video(self.model, self.film["keep"])
            stream = video.frames(contents_again, code, strength=cell["strength"], seed=cell["seed"])
        frames, carried, seconds = [], {}, []
        film = Film(target, size, Fraction(25))
        try:
            with Behind(film.add) as writer:
                before = time.perf_counter()
                for number, frame in enumerate(stream):
                    seconds.append(time.perf_counter() - before)
                    before = time.perf_counter()
                    writer.put(frame.image)
                    frames.append(frame.image.cpu())
                    if frame.trusted is not None:
                        carried[number] = frame.trusted.cpu()
            film.close()
        except DataError as error:
            raise UnwritableError(str(error)) from error
        finally:
            shutil.rmtree(film.parts, ignore_errors=True)
        return frames, carried, seconds

    def _judged(
        self, contents: Sequence[Tensor], frames: Sequence[Tensor], style: Tensor, short: Sequence[Link]
    ) -> list[dict[str, Any]]:
        """How steady a film is, and how much of the style it has."""
        from zoo.metrics.gram_loss import GramLoss
        from zoo.metrics.stlpips import STLPIPS
        from zoo.video import measure

        long = measure.links(contents, self.film["long"])
        loss = GramLoss(device=self.device)
        pairs = list(itertools.pairwise(frames))[::_EVERY]
        losses = [(loss(first, first, style), loss(second, second, style)) for first, second in pairs]
        mean = statistics.fmean(itertools.chain(*losses))
        change = statistics.fmean(abs(second - first) for first, second in losses) / mean
        # Between cuts there may be no link, and no error is not an error of none.
        numbers = [
            measurement(f"film.{name}", measure.warping_error(frames, along), "/255")
            for name, along in (("short", short), ("long", long))
            if along
        ]
        numbers += [
            measurement("film.gram_loss", mean, ""),
            measurement("film.gram_change", 100 * change, "%"),
        ]
        try:
            apart = STLPIPS(device=self.device)
        except DownloadRequiredError:
            pass
        else:
            value = statistics.fmean(apart(second, first, style) for first, second in pairs)
            numbers.append(measurement("film.perceptual", value, ""))
        return numbers


def _strip(frames: Sequence[Tensor], known: Mapping[int, Link] | Mapping[int, Tensor]) -> Tensor:
    """Evenly chosen frames side by side; below them their motion and where it can be trusted, as far as known."""
    import torch
    import torch.nn.functional as F

    from zoo.video.measure import Link, flow_picture

    height, width = frames[0].shape[-2:]
    side = (max(1, round(_STRIP_WIDTH * height / width)), _STRIP_WIDTH)
    chosen = sorted({round(i * (len(frames) - 1) / (_STRIP_FRAMES - 1)) for i in range(_STRIP_FRAMES)})
    blank = torch.zeros(1, 3, height, width)
    rows = [[frames[number] for number in chosen]]
    found = [known.get(number) for number in chosen]
    if any(isinstance(one, Link) for one in found):
        rows.append([flow_picture(one.backward) if isinstance(one, Link) else blank for one in found])
    if known:
        masks = [one.trusted if isinstance(one, Link) else one for one in found]
        rows.append([blank if mask is None else mask.expand(1, 3, -1, -1) for mask in masks])
    small = [[F.interpolate(image, side, mode="area") for image in row] for row in rows]
    return torch.cat([torch.cat(row, 3) for row in small], 2).clamp(0, 1)


if __name__ == "__main__":
    main()
