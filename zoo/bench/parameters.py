"""How many parameters a method holds, in whatever networks and wherever among its attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn


def parameters(model: object) -> int:
    """Numbers in the parameters of every network that an object holds, each network once; buffers are not counted."""
    found: dict[int, Tensor] = {}
    for module in _modules(model, set()):
        found |= {id(parameter): parameter for parameter in module.parameters()}
    return sum(parameter.numel() for parameter in found.values())


def _modules(value: object, seen: set[int]) -> Iterator[nn.Module]:
    """Networks among the attributes of an object, and of the objects of this package among them."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        yield value
        return
    if isinstance(value, Mapping):
        inside: list[object] = list(value.values())
    elif isinstance(value, list | tuple):
        inside = list(value)
    elif type(value).__module__.partition(".")[0] in ("torch", "builtins"):
        return
    else:
        inside = list(getattr(value, "__dict__", {}).values())
    for one in inside:
        yield from _modules(one, seen)
