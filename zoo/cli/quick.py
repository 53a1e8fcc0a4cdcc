"""Pictures of trained styles from exported networks, by onnxruntime and without the two seconds of importing torch."""

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
from zoo.errors import InputError
from zoo.registry import load_registry

if TYPE_CHECKING:
    from zoo.cli.stylize import StylizeOptions

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
    usual = options.strength == 1 and options.preserve_color == "none" and options.checkpoint is None
    usual = usual and options.tile in ("auto", "off")
    here = options.device in ("auto", "cpu") and options.precision in ("auto", "fp32") and options.backend != "torch"
    if not (plain and usual and here):
        return None
    policy = images.SizePolicy.parse(options.content_size)
    sides = policy.value if isinstance(policy.value, tuple) else (policy.value,)
    if policy.mode not in ("long", "exact") or max(sides) > _LARGEST_SIDE:
        return None
    return exported.find(load_registry().resolve(options.method), list(styles))


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
                    if min(height, width) < (least := int(network.metadata["min_size"])):
                        raise InputError(
                            f"The content is {width} x {height} pixels; this method needs at least {least} a side."
                        )
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
