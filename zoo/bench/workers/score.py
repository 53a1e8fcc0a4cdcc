"""Quality metrics from saved pictures.

The job lists metrics and pictures with their prepared content and style; a metric of sets takes pictures that are sets,
``members`` each, and begins anew with every one. Events sent back carry the positions of both:

    load      a metric is built
    start     a metric meets a picture (of a set: every one)
    scored    the value, and of a set what must be said beside it (``note``)
    refused   the metric's weights are missing and may not be fetched: all its pictures, or one
    failed    the metric failed on a picture, or could not be built (then on all: ``item`` is None)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from zoo.bench.workers.common import REFUSALS, Channel, why

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.metrics.base import Metric, SetMetric


def main() -> None:
    """Run the job that stands on standard input."""
    channel = Channel()
    job = channel.job
    import torch

    from zoo.metrics import build
    from zoo.metrics.base import Metric, SetMetric
    from zoo.registry import load_registry

    if job["threads"] is not None:
        torch.set_num_threads(job["threads"])
    for number, use in enumerate(job["metrics"]):
        if not use["items"]:
            continue
        channel.send("load", metric=number)
        try:
            metric = build(use["name"], device=job["device"], **use["settings"])
        except REFUSALS as error:
            channel.send("refused", metric=number, item=None, **why(error))
            continue
        except Exception as error:
            channel.send("failed", metric=number, item=None, **why(error))
            continue
        measures = load_registry().metric(use["name"]).measures
        known: dict[tuple[str, ...], float] = {}
        for item in use["items"]:
            picture = job["pictures"][item]
            channel.send("start", metric=number, item=item)
            try:
                if isinstance(metric, SetMetric):
                    found = _score_set(metric, picture, partial(channel.send, "start", metric=number, item=item))
                else:
                    assert isinstance(metric, Metric)
                    found = {"value": _score_picture(metric, measures, _read(picture), known)}
            except REFUSALS as error:
                channel.send("refused", metric=number, item=item, **why(error))
            except Exception as error:
                channel.send("failed", metric=number, item=item, **why(error))
            else:
                channel.send("scored", metric=number, item=item, **found)
    channel.send("done")


def _read(picture: dict[str, str]) -> tuple[Tensor, Tensor, Tensor]:
    from zoo import images

    output, content, style = (images.read(picture[role]).pixels for role in ("output", "content", "style"))
    return output, content, style


def _score_picture(
    metric: Metric, measures: str, picture: tuple[Tensor, Tensor, Tensor], known: dict[tuple[str, ...], float]
) -> float:
    """The value of a picture; ``known`` keeps values by the pixels they depend on.

    Copies of the content recur with every style and copies of the style with every content: a third of the sanity
    rows of a grid need no computing.
    """
    from zoo.metrics.base import digest

    output, content, style = picture
    read = {"content": (output, content), "style": (output, style)}.get(measures, picture)
    key = tuple(map(digest, read))
    if key not in known:
        known[key] = metric(*picture)
    return known[key]


def _score_set(metric: SetMetric, group: dict[str, Any], tick: Callable[[], None]) -> dict[str, Any]:
    """The value of a set and its note; ``tick`` at every picture keeps the limit from running out over many."""
    from zoo.metrics.base import SmallSetWarning

    metric.begin()
    for picture in group["members"]:
        tick()
        metric.add(*_read(picture))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSetWarning)  # the note says it
        value = metric.value()
    return {"value": value, "note": metric.note}


if __name__ == "__main__":
    main()
