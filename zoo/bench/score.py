"""Quality metrics from saved pictures, in a process of their own: ``python -m zoo.bench.score``.

The job lists metrics and pictures with their prepared content and style. Events sent back carry the positions of both:

    start     a metric meets a picture
    scored    the value
    refused   the metric's weights are missing and may not be fetched: all its pictures, or one
    failed    the metric failed on a picture, or could not be built (then on all: ``item`` is None)
"""

from __future__ import annotations

from zoo.bench.channel import Channel
from zoo.bench.worker import REFUSALS, explain


def main() -> None:
    """Run the job that stands on standard input."""
    channel = Channel()
    job = channel.job
    import torch

    from zoo import images
    from zoo.metrics import load_metric

    if job["threads"] is not None:
        torch.set_num_threads(job["threads"])
    for number, use in enumerate(job["metrics"]):
        if not use["items"]:
            continue
        try:
            metric = load_metric(use["name"], device=job["device"], **use["settings"])
        except REFUSALS as error:
            channel.send("refused", metric=number, item=None, reason=str(error))
            continue
        except Exception as error:
            channel.send("failed", metric=number, item=None, reason=explain(error))
            continue
        for item in use["items"]:
            picture = job["pictures"][item]
            channel.send("start", metric=number, item=item)
            try:
                output, content, style = (images.read(picture[role]).pixels for role in ("output", "content", "style"))
                value = metric(output, content, style)
            except REFUSALS as error:
                channel.send("refused", metric=number, item=item, reason=str(error))
            except Exception as error:
                channel.send("failed", metric=number, item=item, reason=explain(error))
            else:
                channel.send("scored", metric=number, item=item, value=value)
    channel.send("done")


if __name__ == "__main__":
    main()
