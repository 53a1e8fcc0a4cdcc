"""What methods share whose styles are trained, by name: the networks of a checkpoint and the one network of a style.

A method says how a network is made of its tensors; names, records, precision and export are here::

    class MyMethod(TrainedMethod):
        FIRST = "body.conv1.weight"                           # a tensor that every network has
        def _like(self, state): return MyNet.like(state)
        def _task(self): return MyTask                        # what trains one more style

With the trait ``tiled`` its networks have ``by_tiles(images, side)``, a map (:mod:`zoo.nn.tiles`), beside ``forward``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.errors import WeightsError
from zoo.nn.tiles import collect
from zoo.styles import find_styles, read_metadata, split_styles, trained_name
from zoo.stylizer import Call, Mix, Style, Stylized, Stylizer
from zoo.training.task import TrainingTask
from zoo.weights import read_state


class TrainedMethod(Stylizer):
    """One network per style; a checkpoint holds ``{style}.{tensor}`` for any number, or the bare tensors of one run."""

    FIRST: ClassVar[str]

    def _build(self) -> None:
        if self.checkpoint is None:
            raise WeightsError(f"{self.name} needs trained weights: load it by name or give a checkpoint.")
        states = split_styles(read_state(self.checkpoint), self.FIRST)
        metadata = read_metadata(self.checkpoint)
        if set(states) == {""}:
            # A single run's file: its style is named in its metadata, an imported one's by the file.
            states = {next(iter(find_styles(metadata)), self.checkpoint.stem): states[""]}
        self._styles = find_styles(metadata, list(states))
        self._networks = {name: self._ready(self._like(state)) for name, state in states.items()}

    @abstractmethod
    def _like(self, state: Mapping[str, Tensor]) -> nn.Module:
        """The network that fits ``state``, with these weights; WeightsError where none does."""

    @abstractmethod
    def _task(self) -> type[TrainingTask]:
        """What trains one more style."""

    def _ready(self, network: nn.Module) -> Any:
        network = network.to(self.device).to(memory_format=torch.channels_last)
        return network.eval().requires_grad_(False)

    @property
    def style_names(self) -> tuple[str, ...]:
        return tuple(sorted(self._networks))

    def _encode_style(self, style: Style, content_size: tuple[int, int] | None) -> Mapping[str, Any]:
        return {"name": trained_name(style, self._styles, self.name, self._task())}

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        network: Any = self._as_network(style)
        if call.tile is None:
            return self._run(network, content, call)
        return self._run(lambda images: collect(network.by_tiles(images, call.tile), call, images), content, call)

    def _run(self, network: Callable[[Any], Tensor], given: Any, call: Call) -> Stylized:
        """One pass of ``network`` over an image, or over whatever it takes, in the working precision."""
        with self.autocast():
            image = network(given)
        image = image if image.dtype == torch.uint8 else image.float()
        call.report(1, 1, {}, lambda: image)
        return Stylized(image)

    def _as_network(self, style: Mix) -> nn.Module:
        ((code, _),) = style
        return self._networks[code.data["name"]]
