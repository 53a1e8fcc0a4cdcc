"""Pictures and films of trained styles from exported networks, by onnxruntime: torch takes two seconds to import."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zoo.cli.batch import Batch
from zoo.cli.common import StopRequest
from zoo.cli.jobs import Job, summary, write_picture
from zoo.cli.streams import binary_input
from zoo.registry import load_registry

if TYPE_CHECKING:
    from zoo.cli.stylize import StylizeOptions
    from zoo.cli.video import VideoOptions
    from zoo.exported import Frames
    from zoo.options import Backed

# Above this side a picture's memory is predicted before the work, from what the method says of itself in torch.
_LARGEST_SIDE = 1536


def exported_networks(options: StylizeOptions, own: Sequence[str], styles: Sequence[str]) -> dict[str, Path] | None:
    """Return the exported network of each of ``styles``; None where the call needs torch.

    That is so for whatever is no plain picture of one trained style: options of the method (``own``), mixes, regions,
    objects, labels, strength, colors kept, sheets; and for pictures whose size is not known to be small.
    """
    from zoo import exported, images

    placed = options.mask or options.object or options.subject or options.content_labels or options.style_labels
    plain = not (own or options.weights or placed or options.sheet or options.losses or options.save_every)
    if not (plain and options.tile in ("auto", "off") and _usual(options)):
        return None
    policy = images.SizePolicy.parse(options.content_size)
    sides = policy.value if isinstance(policy.value, tuple) else (policy.value,)
    if policy.mode not in ("long", "exact") or max(sides) > _LARGEST_SIDE:
        return None
    return exported.find(load_registry().resolve(options.method), list(styles))


def exported_frames(
    options: VideoOptions, method: str, way: str, own: Sequence[str], style: str, size: tuple[int, int]
) -> Frames | None:
    """Return what makes the frames (height, width) of a film by an exported network; None where the call needs torch.

    That is so for whatever is not frame by frame in one trained style as it was trained, and with ``auto`` where torch
    would have a GPU or half precision.
    """
    from zoo import exported

    plain = way == "none" and options.passes == 1 and options.motion == "dis" and not own
    if not (plain and _usual(options) and max(size) <= _LARGEST_SIDE):
        return None
    if options.backend == "auto" and exported.torch_is_quicker(options.device, options.precision):
        return None
    networks = exported.find(load_registry().resolve(method), [style])
    return None if networks is None else exported.Frames(networks[style], size)


def _usual(options: Backed) -> bool:
    """Whether a trained style is wanted as it is, on the CPU in float32."""
    usual = options.strength == 1 and options.preserve_color == "none" and options.checkpoint is None
    here = options.device in ("auto", "cpu") and options.precision in ("auto", "fp32") and options.backend != "torch"
    return usual and here


def run_exported(jobs: Sequence[Job], networks: dict[str, Path], options: StylizeOptions) -> None:
    """Make the pictures; what is wrong with one is named. Exits with 1 where some were left out, and on Ctrl-C."""
    import numpy as np

    from zoo import images
    from zoo.exported import OnnxNetwork

    label = load_registry().resolve(options.method).label
    loaded = {style: OnnxNetwork(path) for style, path in networks.items()}
    batch = Batch(len(jobs), options.method, 1, None, None)
    last: tuple[str, np.ndarray, np.ndarray | None] | None = None
    try:
        with StopRequest().listening() as stop:
            for job in jobs:
                with batch.sparing(job.content if last is None or last[0] != job.content else job.label):
                    if last is None or last[0] != job.content:
                        source = binary_input() if job.content == "-" else job.content
                        last = (
                            job.content,
                            *images.read_array(
                                source, size=options.content_size, max_pixels=options.max_pixels or images.MAX_PIXELS
                            ),
                        )
                    (style,), (_, photo, alpha) = job.styles, last
                    height, width = photo.shape[-2:]
                    if job.output != "-":
                        images.check_writable(job.output, (height, width))
                    network, started = loaded[style], time.perf_counter()
                    image = network(photo[None])
                    write_picture(job, image, alpha)
                    seconds = time.perf_counter() - started
                    batch.summaries.append(summary(job, label, (height, width), seconds, options.seed))
                if stop.asked:
                    break
    finally:
        batch.close(as_json=options.as_json, quiet=options.quiet)
    if stop.asked or batch.left_out:
        raise typer.Exit(stop.code if stop.asked else 1)
