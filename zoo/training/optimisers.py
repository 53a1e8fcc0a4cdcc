"""The optimisers that ``--optimiser`` names: Adam, or SOAP for networks that are small beside their loss network.

SOAP (Vyas et al., *SOAP: Improving and Stabilizing Shampoo using Adam*, ICLR 2025) runs Adam in the eigenbasis of
Shampoo's preconditioner. One update costs more arithmetic on the weights, which is next to nothing beside VGG: from the
shipped ``mosaic``, 300 updates of four crops of 160 lowered Johnson's objective by 0.168 (lr 1e-2), Adam's by 0.073.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from zoo.extras import need

if TYPE_CHECKING:
    from zoo.training.task import TrainConfig

_EVERY = 10  # updates between two refreshes of SOAP's eigenbasis (section 6.3: quality falls off above that)


def make_optimiser(parameters: Iterable[Any], config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser that ``config`` names over ``parameters``: tensors, or groups of them.

    A group may have a ``factor`` on the learning rate that the schedule sets for all. Raises ConfigError
    where SOAP's package is not installed.
    """
    betas = (0.9, config.beta2)
    if config.optimiser == "adam":
        return torch.optim.Adam(parameters, lr=config.lr, betas=betas)
    need("train", "pytorch_optimizer")
    from pytorch_optimizer import SOAP

    # Momentum 0.95 is SOAP's own. No weight decay: neither paper has any, and the output's scale is the loss's to say.
    return SOAP(parameters, lr=config.lr, betas=(0.95, config.beta2), weight_decay=0.0, precondition_frequency=_EVERY)


__all__ = ["make_optimiser"]
