"""The optimisers that ``--optimizer`` names: Adam, or SOAP for networks that are small beside their loss network.

SOAP (Vyas et al., *SOAP: Improving and Stabilizing Shampoo using Adam*, ICLR 2025) runs Adam in the eigenbasis of
Shampoo's preconditioner. One update costs more arithmetic on the weights, which is next to nothing beside VGG: from the
shipped ``mosaic``, 300 updates of four crops of 160 lowered Johnson's objective by 0.168 (lr 1e-2), Adam's by 0.073.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.extras import need

if TYPE_CHECKING:
    from zoo.training.task import TrainConfig

_EVERY = 10  # updates between two refreshes of SOAP's eigenbasis (section 6.3: quality falls off above that)


def make_optimizer(parameters: Iterable[Any], config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser that ``config`` names over ``parameters``: tensors, or groups of them.

    A group may have a ``factor`` on the learning rate that the schedule sets for all. Raises ConfigError
    where SOAP's package is not installed.
    """
    betas = (0.9, config.beta2)
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=config.lr, betas=betas)
    need("train", "pytorch_optimizer")
    from pytorch_optimizer import SOAP

    # Momentum 0.95 is SOAP's own. No weight decay: neither paper has any, and the output's scale is the loss's to say.
    return SOAP(parameters, lr=config.lr, betas=(0.95, config.beta2), weight_decay=0.0, precondition_frequency=_EVERY)


class Optimizers(Mapping[str, Any]):
    """The optimisers of a task by name, as :meth:`TrainingTask.step` gets them; made by the trainer.

    ``diverged(what)`` makes the error to raise where the gradient or the loss is not finite, None where scaled fp16
    gradients may overflow now and then. ``last`` is whether a batch is the last of those that an update averages.
    """

    def __init__(
        self, fabric: Any, module: Any, by_name: Mapping[str, Any], config: TrainConfig, diverged: Callable | None
    ) -> None:
        if len(by_name) > 1 and config.accumulate > 1:
            raise ConfigError("Several optimisers take every batch as it comes: leave --accumulate at 1.")
        self._fabric, self._module, self._by_name, self._config = fabric, module, dict(by_name), config
        self._diverged = diverged
        self._seen: Tensor | float = 0.0
        self.last = True
        self.norm = torch.zeros(())

    def __getitem__(self, name: str) -> Any:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def loss(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the task's :meth:`TrainingTask.loss`, in the working precision and for all processes together."""
        return self._module(batch)

    def autocast(self) -> Any:
        """Return the context of the working precision, for what a step computes besides :meth:`loss`."""
        return self._fabric.autocast()

    def minimize(self, loss: Tensor, name: str = "network") -> None:
        """Follow the gradient of ``loss`` with the optimiser ``name``; no other weights move, and no gradient is left.

        Of the batches that an update averages, all but the last only add their part of the gradient.
        """
        self._fabric.backward(loss / self._config.accumulate)
        self._seen = self._seen + loss.detach()
        if not self.last:
            return
        limit = self._config.clip if self._config.clip is not None else math.inf
        norm = self._fabric.clip_gradients(self._module, self[name], max_norm=limit, error_if_nonfinite=False)
        self.norm = torch.as_tensor(norm).detach()
        # It would spoil the weights, and the checkpoint with them. The norm is the same in every process.
        if self._diverged is not None and not math.isfinite(float(self.norm)):
            raise self._diverged("gradient" if math.isfinite(float(self._seen)) else "loss")
        self._seen = 0.0
        self[name].step()
        for optimizer in self.values():
            optimizer.zero_grad()


__all__ = ["Optimizers", "make_optimizer"]
