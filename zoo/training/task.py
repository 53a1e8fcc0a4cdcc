"""What a trainable method supplies, and the options that every training run has.

A method's file holds its loss and nothing of the machinery::

    class MyTask(TrainingTask):
        method, sets = "my-method", ("content", "style")
        defaults = TrainConfig(steps=160_000, batch_size=8, lr=1e-4)     # the paper's
        Config = MyTaskConfig                      # a frozen Config dataclass: the options of the loss

        def __init__(self, config=None): ...       # self.network is trained and exported, the rest is frozen
        def loss(self, batch): ...                 # {"total": ..., "content": ..., "style": ...}

and its entry in registry.yaml says ``training: module:MyTask``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.config import Config, option
from zoo.errors import ConfigError
from zoo.registry import load_registry
from zoo.training.optimizers import Optimizers, make_optimizer

Batch = Mapping[str, Tensor]
HeldOut = Mapping[str, Sequence[Tensor]]


@dataclass(frozen=True)
class TrainConfig(Config):
    """Options of a training run. A task's ``defaults`` are its paper's; the caller overrides what it names."""

    steps: int = option(10_000, "Updates of the weights.", ge=1)
    time_limit: float | None = option(None, "End cleanly after so many minutes, all resumes counted.", gt=0)
    batch_size: int = option(8, "Images of each set per process and update, before accumulation.", ge=1, le=4096)
    accumulate: int = option(1, "Batches whose gradients are averaged into one update.", ge=1)
    crop: int = option(256, "Side of the training crops in pixels.", ge=16, le=8192)
    zoom: tuple[float, ...] = option(
        (1.0, 1.0), "Lowest and highest enlargement of the crops, log-uniform.", ge=0.0625, le=16
    )
    store: int = option(288, "Shorter side of the decoded images kept in the cache, in pixels.", ge=16, le=8192)
    optimizer: Literal["adam", "soap"] = option("adam", "Optimiser of the weights (zoo/training/optimizers.py).")
    lr: float = option(1e-3, "Learning rate.", gt=0, le=1e6)
    schedule: Literal["constant", "inverse", "step", "cosine"] = option(
        "constant", "lr; lr / (1 + decay t); lr decay^(t div decay_every); or a cosine to zero at the end."
    )
    decay: float = option(0.0, "Constant of the schedules inverse and step.", ge=0)
    decay_every: int = option(1000, "Updates between two decays of the schedule step.", ge=1)
    warmup: int = option(0, "Updates over which the learning rate rises linearly from zero.", ge=0)
    beta2: float = option(0.999, "Decay of the squared gradients.", ge=0, lt=1)
    clip: float | None = option(None, "Largest norm of the gradient; above it, the gradient is scaled down.", gt=0)
    ema: float | None = option(None, "Export the moving average of the weights with this decay per update.", gt=0, lt=1)
    seed: int = option(0, "Seed of the data order, the crops and all noise.", ge=0, le=18446744073709551615)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Number format of the convolutions; auto is bf16 where the hardware has it."
    )
    accelerator: str = option("auto", "auto, cpu, cuda, cuda:N or mps; several processes by torchrun.")
    checkpoint_minutes: float = option(5.0, "Minutes between checkpoints.", ge=0)
    preview_every: int = option(1000, "Updates between preview sheets; 0 for none.", ge=0)
    evaluate_every: int = option(0, "Updates between evaluations on the held-out images; 0 for the end only.", ge=0)
    log_every: int = option(20, "Updates between two readings of the losses by the progress display.", ge=1)

    def validate(self) -> None:
        if len(self.zoom) != 2 or self.zoom[0] > self.zoom[1]:
            raise ConfigError(f"Option 'zoom' takes two numbers, low,high; got {self.zoom}.")
        if self.schedule == "step" and self.decay > 1:
            raise ConfigError(f"Option 'decay' of the schedule step must be at most 1, not {self.decay:g}.")


class TrainingTask(nn.Module, ABC):
    """A loss over batches of images, and the network it trains.

    ``network``, a module, is trained (those of its parameters that require gradients) and exported. Other
    modules are frozen helpers: they are rebuilt, never saved. ``method`` and ``paper`` go into the checkpoint's card,
    as do ``teacher`` (the pretrained network behind the loss, and its licence) and :meth:`describe`.
    """

    method: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    sets: ClassVar[tuple[str, ...]] = ("content",)
    defaults: ClassVar[TrainConfig] = TrainConfig()
    Config: ClassVar[type[Config]] = Config

    network: Any
    teacher: str = ""

    @property
    def multiple_of(self) -> int:
        """Sides of crops must be multiples of this: above 1 where the loss compares images, or features, with such as
        were halved and doubled on their way."""
        return 1

    @property
    def min_crop(self) -> int:
        """Smallest side of crops that the network can be trained on."""
        return 1

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Scalar losses by name, among them ``total``, whose gradient is followed.

        ``batch`` has each of ``sets`` as (B, 3, crop, crop) float32 RGB in [0, 1]. Runs under autocast: cast to
        float32 before differences and means of squares. Global random numbers are seeded from (seed, step, process).
        """

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.loss(batch)

    def adopt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of ``network`` in those of a file given to start from, such as one that ships; all of them
        unless the method ships several networks in one file."""
        return state

    def prepare(self, batches: Iterator[Batch]) -> None:
        """Before the first update of a new run that has no ``init_from``: start values computed from data, or taken
        from files that options name. Global random numbers are seeded, and alike in every process."""
        return None

    def optimizer(self, config: TrainConfig, batches: Iterator[Batch] | None) -> torch.optim.Optimizer:
        """The optimiser of ``network``: the one that ``config`` names. ``batches`` are there for one that measures
        something first; they are None where a run goes on, whose optimiser gets its state from the checkpoint."""
        return make_optimizer([p for p in self.network.parameters() if p.requires_grad], config)

    def optimizers(self, config: TrainConfig, batches: Iterator[Batch] | None) -> Mapping[str, torch.optim.Optimizer]:
        """All optimisers by name: the one of ``network``, unless the task alternates between several."""
        return {"network": self.optimizer(config, batches)}

    def step(self, batch: Batch, optimizers: Optimizers) -> dict[str, Tensor]:
        """One update: the losses that it followed, by name, among them ``total``. The default follows the gradient of
        :meth:`loss`. An adversarial task has two optimisers and does, in turn::

            optimizers.minimize(critic_loss, "critic")
            optimizers.minimize(losses["total"], "network")
        """
        losses = optimizers.loss(batch)
        optimizers.minimize(losses["total"])
        return losses

    def evaluate(self, held_out: HeldOut) -> dict[str, float]:
        """Figures on images that are never trained on, lists of (1, 3, H, W) by set. Without gradients."""
        return {}

    def preview(self, held_out: HeldOut) -> list[list[Tensor]]:
        """Rows of images (1, 3, H, W) for the preview sheet. Without gradients."""
        return []

    def describe(self) -> dict[str, Any]:
        """The task's own options, JSON-ready: what must agree for a run to be resumed."""
        return {}


def teacher(encoder: str, tap: str, digest: str) -> str:
    """What a card says of the frozen network behind a loss: its name, how deep it is used, its licence and digest."""
    entry = load_registry().encoders.get(encoder)
    return f"{encoder} to {tap}; {entry.license if entry else 'licence as its source states'}; sha256 {digest[:16]}"


def check_crop(task: TrainingTask, config: TrainConfig) -> None:
    """ConfigError unless the crops have a side that ``task`` can use."""
    cell = task.multiple_of
    if config.crop < task.min_crop:
        raise ConfigError(
            f"Training {task.method} with these options needs crops of at least {task.min_crop} pixels, not "
            f"{config.crop}: set --crop."
        )
    if config.crop % cell:
        near = [side for side in (config.crop // cell * cell, (config.crop // cell + 1) * cell) if side >= 16]
        raise ConfigError(
            f"Training {task.method} with these options needs crops of a multiple of {cell} pixels, not "
            f"{config.crop}: set --crop to {' or '.join(map(str, near))}."
        )
