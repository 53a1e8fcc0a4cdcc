"""What may be asked of the machine that serves the page."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """Limits on what one visitor, and all together, may ask of the machine.

    side:     longest side of a result, in pixels
    pixels:   most pixels of a file, told by its header before it is decoded
    bytes:    size of a file
    held:     size of all uploads that are kept, in bytes
    steps:    most steps of an optimisation
    frames:   most frames of a film
    waiting:  orders in work and waiting
    visitors: pages open at once
    models:   methods held in memory; the one used longest ago goes first
    """

    side: int = 1024
    pixels: int = 25_000_000
    bytes: int = 20_000_000
    held: int = 500_000_000
    steps: int = 1000
    frames: int = 150
    waiting: int = 64
    visitors: int = 64
    models: int = 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"The limit of {name} must be at least 1, got {value}.")
