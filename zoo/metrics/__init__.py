"""Metrics, one file each; what they are called, their direction and version stand in registry.yaml.

``load_metric("ssim", channels="rgb")`` builds one; see :class:`zoo.metrics.base.Metric` for how it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.metrics.base import Metric


def load_metric(name: str, *, device: str = "cpu", **settings: Any) -> Metric:
    """Build a metric by its name in the registry; UnknownNameError, ConfigError, DownloadRequiredError."""
    from zoo.registry import import_object, load_registry

    entry = load_registry().metric(name)
    cls: type[Metric] = import_object(entry.implementation)
    return cls(cls.Config.make(settings), device=device)
