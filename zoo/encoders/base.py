"""What every encoder is to the rest of the zoo: a frozen network read by the names of its taps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

from torch import Tensor, nn

from zoo.errors import InputError, UnsupportedError


class Encoder(nn.Module, ABC):
    """A pretrained network, frozen and in evaluation mode, cut behind the deepest tap asked for.

    ``name`` is the registered name, ``taps`` the taps in the order asked for, ``digest`` the sha256 that identifies
    the weights. Calling it with images (B, 3, H, W), RGB in [0, 1], gives ``{tap: (B, C, h, w)}`` in that order; the
    network's own preprocessing is part of it. Gradients flow to the images, never to the weights.
    """

    name: str
    taps: tuple[str, ...]
    digest: str
    _constants: dict[str, Tensor]  # of the preprocessing; float32 whatever the weights' type, on their device

    @abstractmethod
    def channels(self, tap: str) -> int:
        """Number of channels at ``tap``; UnknownNameError if the network has no such tap."""

    @abstractmethod
    def stride(self, tap: str) -> int:
        """Pixels of the image per position at ``tap``, along each side."""

    def reach(self, tap: str) -> int:
        """Pixels beyond those under a position at ``tap`` that its features depend on, along each side.

        UnsupportedError where a network does not say it, or depends on the whole picture.
        """
        raise UnsupportedError(f"Encoder {self.name} cannot be run by tiles: it does not say how far its layers see.")

    @property
    @abstractmethod
    def min_size(self) -> int:
        """Smallest side of an image, in pixels, for which every tap has at least one position."""

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features at every tap. InputError if ``images`` is not (B, 3, H, W), floating, and large enough."""

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: a frozen network has no other."""
        return super().train(False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        # Not buffers: `.to(torch.bfloat16)` must move the mean but never round it.
        super()._apply(fn, recurse)
        device = next(self.parameters()).device
        self._constants = {name: value.to(device) for name, value in self._constants.items()}
        return self

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise InputError(
                f"Encoder {self.name} takes floating RGB images of shape (B, 3, H, W), "
                f"not {tuple(images.shape)} of {images.dtype}."
            )
        if min(images.shape[-2:]) < self.min_size:
            height, width = images.shape[-2:]
            raise InputError(
                f"Encoder {self.name} needs images of at least {self.min_size} pixels a side for the taps "
                f"{', '.join(self.taps)}, not {width} x {height}."
            )
