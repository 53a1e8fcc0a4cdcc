"""A network of a few weights and pictures to train it on, for the tests of the trainer."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from zoo.training import TrainConfig, TrainingTask, train

TINY = TrainConfig(steps=12, batch_size=2, crop=16, lr=1e-2, log_every=4, preview_every=0, precision="fp32", warmup=2)


class Tiny(TrainingTask):
    """Learns to undo a fixed tint, with noise that must come out the same after a resume."""

    method, paper, sets = "tiny", "none", ("content", "style")
    defaults = TINY

    def __init__(self, channels: int = 4, spoil_at: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.network = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 3, 1))
        for parameter in self.network.parameters():
            nn.init.normal_(parameter, std=0.2, generator=generator)
        self.spoil_at, self.calls = spoil_at, 0

    def loss(self, batch):
        self.calls += 1
        target = batch["content"]
        tinted = target * 0.5 + 0.1 * batch["style"].mean((2, 3), keepdim=True)
        output = self.network(tinted + 0.01 * torch.randn_like(tinted)).float()
        pixel = (output - target).pow(2).mean()
        if self.spoil_at and self.calls >= self.spoil_at:
            pixel = pixel * math.nan
        return {"total": pixel, "brightness": (output.mean() - target.mean()).abs()}

    def evaluate(self, held_out):
        return {"error": float((self.network(held_out["content"][0]) - held_out["content"][0]).abs().mean())}

    def preview(self, held_out):
        return [[image, self.network(image).clamp(0, 1)] for image in held_out["content"]]

    def describe(self):
        return {"channels": self.network[0].out_channels}


def write_pictures(root: Path) -> Path:
    """Ten smooth pictures for each of two sets, of several sizes."""
    random = np.random.default_rng(1)
    for name in ("content", "style"):
        (root / name / "deep").mkdir(parents=True)
        for index in range(10):
            small = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
            picture = small.resize((60 + 5 * index, 48 + 3 * index), Image.Resampling.BICUBIC)
            picture.save(root / name / ("deep" if index % 2 else ".") / f"{index}.png")
    return root


def run(data, folder: Path, task: TrainingTask | None = None, *, resume=False, progress=None, **options):
    keep = {k: options.pop(k) for k in ("init_from", "held_out", "command", "notes") if k in options}
    config = TrainConfig.make({**TINY.to_dict(), "zoom": tuple(TINY.zoom), **options})
    return train(task or Tiny(), config, data, folder, resume=resume, progress=progress, **keep)


def losses(folder: Path) -> list[list[str]]:
    with (folder / "losses.csv").open(newline="") as file:
        return list(csv.reader(file))
