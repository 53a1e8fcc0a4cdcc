"""What the tests of metrics share: pictures, growing noise and blur, seeded networks in place of fetched ones."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import images
from zoo.metrics import load_metric, load_set_metric
from zoo.metrics.base import Metric, SmallSetWarning
from zoo.registry import load_registry

AMOUNTS = (0.05, 0.1, 0.2, 0.4)


def noisy(image: Tensor, amount: float, seed: int = 0) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + amount * noise).clamp(0, 1)


def blurred(image: Tensor, radius: int) -> Tensor:
    """A box blur of 2 radius + 1 pixels, reflected at the border."""
    padded = F.pad(image, (radius,) * 4, mode="reflect")
    return F.avg_pool2d(padded, 2 * radius + 1, stride=1)


def require_growing(values: Sequence[float], direction: str) -> None:
    """From best to worst, strictly."""
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert all(step < 0 if direction == "higher" else step > 0 for step in steps), values


def require_independent(name: str, make: Callable[[], Metric], content: Tensor, style: Tensor) -> None:
    """One value per picture, whatever the batch, the order, what the metric saw before, and the side it ignores."""
    outputs = torch.cat([noisy(content, 0.1, seed) for seed in range(3)])
    contents, styles = torch.cat([content, content.flip(-1), content]), torch.cat([style, style, style.flip(-2)])
    together = make().many(outputs, contents, styles)
    fresh = make()
    alone = [fresh(*(t[i : i + 1] for t in (outputs, contents, styles))) for i in reversed(range(3))]
    assert together == list(reversed(alone)), name
    assert len(set(together)) > 1, f"{name} does not see its input"
    measures = load_registry().metric(name).measures
    if measures == "content":
        assert fresh(outputs[:1], content, style.flip(1)) == together[0], name
    elif measures == "style":
        assert fresh(outputs[:1], content.flip(1), style) == together[0], name


def seeded_state(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A state of the network's names and shapes, drawn so that signals keep their size from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            state[name] = value.clone()
        elif name.endswith("running_var"):
            state[name] = torch.ones_like(value)
        elif value.ndim < 2:  # biases, and a normalisation's scales and means
            scale = name.endswith("weight") + 0.1 * torch.randn(value.shape, generator=generator)
            state[name] = scale
        else:
            fan = value[0].numel()
            state[name] = torch.randn(value.shape, generator=generator) * (2 / fan) ** 0.5
    return state


# The shallow layers at a small scale stand for E's five at 512, which cost seconds per picture.
SMALL_E: dict[str, Any] = {"taps": "relu1_1,relu2_1,relu3_1", "short_side": 96}


def values() -> dict[str, float]:
    """A value of every metric that needs no download, on one thread: what ``python metric_cases.py`` prints."""
    read = [images.read(f"builtin:{name}", size="exact:80x64").pixels for name in ("astronaut", "coffee", "swirls")]
    content, *styles = [(image * 255).round() / 255 for image in read]
    outputs = [noisy(0.7 * content + 0.3 * style, 0.05, seed) for seed, style in enumerate(styles)]
    found: dict[str, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, entry in load_registry().metrics.items():
            if entry.needs:
                continue
            if entry.scope == "pair":
                metric = load_metric(name, **(SMALL_E if name == "e_statistic" else {}))
                found[name] = metric(outputs[0], content, styles[0])
                continue
            group = load_set_metric(name)
            group.begin()
            for output, style in zip(outputs, styles, strict=True):
                group.add(output, content, style)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SmallSetWarning)
                found[name] = group.value()
    finally:
        torch.set_num_threads(threads)
    return found


if __name__ == "__main__":
    print(json.dumps(values()))
