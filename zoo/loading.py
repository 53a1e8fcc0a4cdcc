"""``zoo.load``: the one door from a name to a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import weights
from zoo.names import on_disk
from zoo.registry import import_object, load_registry

if TYPE_CHECKING:
    from zoo.stylizer import Stylizer


def load(
    name: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    checkpoint: str | Path | None = None,
    **options: Any,
) -> Stylizer:
    """Build a method by name: ``zoo.load("gatys", num_steps=300)``.

    ``name`` is ``method`` or ``method.tag``; ``options`` are the fields of its Config (``zoo info NAME`` lists them).
    ``checkpoint`` is a safetensors file of your own instead of the registered one.
    Raises UnknownNameError, ConfigError, WeightsError.
    """
    resolved = load_registry().resolve(name)
    cls: type[Stylizer] = import_object(resolved.entry.implementation)
    config = cls.Config.make({**resolved.options, **options})
    file: Path | None = on_disk(checkpoint) if checkpoint is not None else None
    if file is None and resolved.checkpoint is not None:
        file = weights.path(resolved.weights, resolved.checkpoint)
    return cls(config, device=device, precision=precision, checkpoint=file, name=resolved.label)


__all__ = ["load"]
