"""The method tint-net, a network of a few weights that a plugin registers, and photographs to train it on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.registry import load_registry

PLUGIN = """
from dataclasses import dataclass
import torch
from torch import nn
from zoo.config import Config, option
from zoo.stylizer import Stylized, Stylizer, Traits
from zoo.training.task import TrainConfig, TrainingTask
from zoo.weights import read_state

@dataclass(frozen=True)
class TintTaskConfig(Config):
    width: int = option(4, "Channels of the network.", ge=1)
    start: str | None = option(None, "Weights to begin from.")
    slow: float = option(0.0, "Seconds that every step takes besides.", ge=0)

class TintTask(TrainingTask):
    method, paper, sets = "tint-net", "none", ("content", "style")
    defaults = TrainConfig(steps=12, batch_size=2, crop=16, lr=1e-2, log_every=1, preview_every=0, precision="fp32")
    Config = TintTaskConfig

    def __init__(self, config=None):
        super().__init__()
        self.config = config or TintTaskConfig()
        generator = torch.Generator().manual_seed(3)
        self.network = nn.Sequential(nn.Conv2d(3, self.config.width, 1), nn.Conv2d(self.config.width, 3, 1))
        for parameter in self.network.parameters():
            nn.init.normal_(parameter, std=0.2, generator=generator)

    def prepare(self, batches):
        if self.config.start is not None:
            self.network.load_state_dict(read_state(self.config.start))

    def loss(self, batch):
        if self.config.slow:
            import time
            time.sleep(self.config.slow)
        target = batch["content"] * 0.5 + 0.1 * batch["style"].mean((2, 3), keepdim=True)
        noisy = batch["content"] + 0.01 * torch.randn_like(batch["content"])
        return {"total": (self.network(noisy).float() - target).pow(2).mean()}

    def evaluate(self, held_out):
        return {"seen": float(sum(image.shape[-1] for image in held_out["content"]))}

    def describe(self):
        return {k: v for k, v in self.config.to_dict().items() if k != "slow"}

class TintNet(Stylizer):
    ENTRY = {
        "title": "Tint", "authors": "None", "year": 2020, "paper": "https://example.org", "bibtex": "@misc{tint}",
        "taxonomy": {"optimizes": "model", "styles": "any", "statistics": "parametric"},
        "default": "plain", "presets": {"plain": {"summary": "Plain"}}, "training": "zoo_tint_net:TintTask",
    }
    traits = Traits(strength="none", min_size=2)

    def _encode_style(self, style, content_size):
        return {}

    def _stylize(self, content, style, call):
        return Stylized(content)
"""


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[Path]:
    """Put the plugin into ``folder``, which is on the path inside the block."""
    (folder / "zoo_tint_net.py").write_text(PLUGIN)
    info = folder / "zoo_tint_net-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-tint-net\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo.methods]\ntint-net = zoo_tint_net:TintNet\n")
    sys.path.insert(0, str(folder))
    load_registry.cache_clear()
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("zoo_tint_net", None)
        load_registry.cache_clear()


def write_photos(root: Path) -> Path:
    """Six small pictures in each of two folders."""
    random = np.random.default_rng(0)
    for name in ("content", "style"):
        (root / name).mkdir()
        for index in range(6):
            small = Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8))
            small.resize((40 + index, 48), Image.Resampling.BICUBIC).save(root / name / f"{index}.png")
    return root
