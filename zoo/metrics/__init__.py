"""Metrics, one file each; what they are called, their direction and version stand in registry.yaml.

``load_metric("ssim", channels="rgb")`` builds one of a picture, ``load_set_metric("fid")`` one of a set of pictures:
see :class:`zoo.metrics.base.Metric` and :class:`zoo.metrics.base.SetMetric` for how they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError

if TYPE_CHECKING:
    from zoo.metrics.base import AnyMetric, Metric, SetMetric


def load_metric(name: str, *, device: str = "cpu", **settings: Any) -> Metric:
    """Build a metric of one picture by its name in the registry.

    Raises UnknownNameError, ConfigError (a setting, or a metric of sets), DownloadRequiredError, UnsupportedError.
    """
    from zoo.metrics.base import Metric

    metric = build(name, device=device, **settings)
    if not isinstance(metric, Metric):
        raise ConfigError(f"{name} scores a set of pictures: build it with load_set_metric.")
    return metric


def load_set_metric(name: str, *, device: str = "cpu", **settings: Any) -> SetMetric:
    """Build a metric of a set of pictures by its name in the registry; raises as :func:`load_metric`."""
    from zoo.metrics.base import SetMetric

    metric = build(name, device=device, **settings)
    if not isinstance(metric, SetMetric):
        raise ConfigError(f"{name} scores one picture: build it with load_metric.")
    return metric


def build(name: str, *, device: str = "cpu", **settings: Any) -> AnyMetric:
    """A metric of either kind; its ``scope`` says which."""
    from zoo.registry import import_object, load_registry

    entry = load_registry().metric(name)
    cls: type[AnyMetric] = import_object(entry.implementation)
    return cls(cls.Config.make(settings), device=device)
