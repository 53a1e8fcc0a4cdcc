"""Pictures larger than memory, by tiles without seams, with any method that has the trait ``tiled``.

What depends on the whole picture is gathered over all tiles first; what is local is computed tile by tile with the halo
that it needs. The result is that of the whole picture up to rounding. How a method does it is its own
(:meth:`zoo.stylizer.Stylizer._stylize_tiles`); here is only which tiles a picture gets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo import memory
from zoo.controls.base import Control
from zoo.stylizer import Call, Mix, Stylized, Stylizer


def side_of(model: Stylizer, tile: str | int, height: int, width: int) -> int | None:
    """Return the side of a picture's tiles as :meth:`zoo.stylizer.Stylizer.stylize` takes it, None for no tiles.

    ``auto`` cuts a picture whose predicted memory exceeds what is free, where the method can. Raises ConfigError for a
    ``tile`` that is none of :func:`zoo.memory.parse_tile`.
    """
    tile = memory.parse_tile(tile)
    if tile == "off":
        return None
    return memory.tile_side(model, height, width) if tile == "auto" else int(tile)


class Tiles(Control):
    """Any method by tiles: ``auto``, where a whole picture does not fit into free memory, or of ``tile`` pixels a side.

    A side goes to the method inside, which refuses it where it cannot be computed by tiles.
    """

    def __init__(self, model: Stylizer, tile: str | int = "auto") -> None:
        self.tile = memory.parse_tile(tile)
        super().__init__(model)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"tile": self.tile}

    @property
    def _made_with(self) -> str:
        return f"{type(self).__name__} {self.model._made_with}"  # a style is the same for any tiles

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        if call.tile is None:
            side = side_of(self.model, self.tile, content.shape[-2], content.shape[-1])
            call = dataclasses.replace(call, tile=side)
        return self._call(content, self._inner(style), call)


__all__ = ["Tiles", "side_of"]
