"""A model zoo and benchmarking suite for neural style transfer.

    import zoo

    zoo.stylize("photo.jpg", "painting.jpg", method="wct", strength=0.7).save("out.png")

    model = zoo.load("gatys", num_steps=300)          # tensors in, tensors out
    photo, painting = zoo.read("builtin:astronaut"), zoo.read("builtin:swirls")
    zoo.write("out.png", model(photo.pixels, painting.pixels))

Names load on first use, so that ``import zoo`` and the command line's listings stay free of torch and pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from zoo.front import stylize
    from zoo.images import read, write
    from zoo.loading import load
    from zoo.registry import load_registry
    from zoo.report.frame import results
    from zoo.stylizer import Context, Mix, Style, StyleCode, Stylized, Stylizer, Traits

_HOMES = {
    "load": "zoo.loading",
    "load_registry": "zoo.registry",
    "read": "zoo.images",
    "results": "zoo.report.frame",
    "stylize": "zoo.front",
    "write": "zoo.images",
    "Context": "zoo.stylizer",
    "Mix": "zoo.stylizer",
    "Style": "zoo.stylizer",
    "StyleCode": "zoo.stylizer",
    "Stylized": "zoo.stylizer",
    "Stylizer": "zoo.stylizer",
    "Traits": "zoo.stylizer",
}

__all__ = [
    "Context",
    "Mix",
    "Style",
    "StyleCode",
    "Stylized",
    "Stylizer",
    "Traits",
    "__version__",
    "list_methods",
    "load",
    "load_registry",
    "read",
    "results",
    "stylize",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        try:
            return getattr(importlib.import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            from zoo.errors import UnsupportedError
            from zoo.extras import explained

            told = explained(error)
            if told is None:
                raise
            raise UnsupportedError(told) from error
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")


def list_methods(pattern: str = "*") -> list[str]:
    """Names of methods that match a wildcard, without importing any of them."""
    from zoo.registry import load_registry

    return load_registry().match([pattern])
