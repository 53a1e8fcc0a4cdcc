"""The perceptual loss behind every per-style network: content and style as a frozen network sees them.

Johnson, Alahi and Fei-Fei, *Perceptual Losses for Real-Time Style Transfer and Super-Resolution*, ECCV 2016, section
3.2, in the units of the authors' code (jcjohnson/fast-neural-style), so that their weights can be copied, but that of
the total variation, which depends on their batch:

- content: mean squared difference of features (eq. 2) at one layer of a network that sees levels of 255;
- style: for each layer the mean squared difference of Gram matrices F F^T / (C H W) (eqs. 3, 4), summed over layers;
- total variation: half the sum of squared differences of neighbouring pixels in levels of 255, per image. Their code
  sums it over the batch, of which the other terms are means: 1e-6 in batches of 4 is 4e-6 here, in batches of any size.

In these units a style term can be ten thousand or ten million, as the style image has it. With ``relative`` each is a
fraction instead, so that one set of weights suits every style: the content's squared error over the mean square of the
content's own features; each layer's over the mean square of the style's own Gram matrix, averaged over layers; and the
total variation as the mean of squared differences of pixels in [0, 1].
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo.encoders import load_encoder
from zoo.encoders.vgg import Pool
from zoo.errors import ConfigError
from zoo.nn.gram import Divisor, gram
from zoo.nn.losses import total_variation
from zoo.training.task import teacher


class PerceptualLoss(nn.Module):
    """Content, style and total variation of images against targets. Frozen: gradients reach the images only.

    ``divide_by``: of Gram matrices (see :func:`zoo.nn.gram.gram`). ``content_layer`` None leaves content out (texture
    synthesis). ``relative``: see the module's docstring. ConfigError without a style layer, UnknownNameError for an
    unknown one.
    """

    def __init__(
        self,
        *,
        encoder: str = "vgg19",
        content_layer: str | None = "relu2_2",
        style_layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
        content_weight: float = 1.0,
        style_weight: float = 5.0,
        tv_weight: float = 0.0,
        divide_by: Divisor = "chw",
        pool: Pool = "max",
        relative: bool = False,
    ) -> None:
        super().__init__()
        if not style_layers:
            raise ConfigError("The style needs at least one layer, such as relu2_2: name some.")
        self.content_layer, self.style_layers = content_layer, tuple(dict.fromkeys(style_layers))
        self.divide_by: Divisor = divide_by
        self.relative = relative
        self.content_weight, self.style_weight, self.tv_weight = content_weight, style_weight, tv_weight
        taps = [*([content_layer] if content_layer else []), *style_layers]
        self.network = load_encoder(encoder, taps=taps, pool=pool)
        # The content is never needed deeper than its layer.
        self.shallow = load_encoder(encoder, taps=[content_layer], pool=pool) if content_layer else None
        deepest = taps[0] if len(taps) == 1 else max(taps, key=lambda tap: (self.network.stride(tap), tap))
        self.teacher = teacher(encoder, deepest, self.network.digest)

    @torch.no_grad()
    def style_targets(self, image: Tensor) -> dict[str, Tensor]:
        """Gram matrices (1, C, C) by layer of a style image (1, 3, H, W) in [0, 1]."""
        features = self.network(image)
        return {layer: gram(features[layer], self.divide_by) for layer in self.style_layers}

    def hold(self, styles: Sequence[Tensor]) -> None:
        """Keep the Gram matrices of ``styles``, each (1, 3, H, W): they move with the network and are never saved."""
        targets = [self.style_targets(style) for style in styles]
        for index, layer in enumerate(self.style_layers):
            self.register_buffer(f"gram{index}", torch.cat([one[layer] for one in targets]), persistent=False)

    def held(self) -> dict[str, Tensor]:
        """The Gram matrices (styles, C, C) by layer that :meth:`hold` keeps."""
        return {layer: self.get_buffer(f"gram{index}") for index, layer in enumerate(self.style_layers)}

    def forward(self, images: Tensor, content: Tensor | None, style: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``total`` and its weighted terms ``content``, ``style``, ``tv``, each the mean over the batch.

        ``images`` and ``content`` are (B, 3, H, W) in [0, 1]; ``style`` has (1, C, C) for all or (B, C, C) by layer.
        """
        each = self.each(images, content, style)
        terms = {name: values.mean() for name, values in each.items()}
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def each(self, images: Tensor, content: Tensor | None, style: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weighted terms of each image, (B,)."""
        images = images.float()
        features = self.network(images)
        terms: dict[str, Tensor] = {}
        if self.shallow is not None and content is not None:
            assert self.content_layer is not None  # there is a shallow network only with it
            with torch.no_grad():
                wanted = self.shallow(content)[self.content_layer]
            wanted = wanted.float()
            content_term = (features[self.content_layer].float() - wanted).square().mean((1, 2, 3))
            if self.relative:
                content_term = content_term / wanted.square().mean((1, 2, 3))
            terms["content"] = self.content_weight * content_term
        layers = []
        for layer in self.style_layers:
            term = (gram(features[layer], self.divide_by) - style[layer]).square().mean((1, 2))
            if self.relative:
                term = term / style[layer].square().mean((1, 2)) / len(self.style_layers)
            layers.append(term)
        terms["style"] = self.style_weight * torch.stack(layers).sum(0)
        if self.tv_weight:
            variation = torch.stack([total_variation(image) for image in images.split(1)])
            if self.relative:
                variation = variation * (2 / 255**2 / images[0].numel())
            terms["tv"] = self.tv_weight * variation
        return terms


@torch.no_grad()
def objective(
    criterion: PerceptualLoss,
    style: Mapping[str, Tensor],
    network: Callable[[Tensor], Tensor],
    contents: Sequence[Tensor],
) -> dict[str, float]:
    """Means over ``contents`` of the criterion and its terms on what ``network`` makes of them, clamped to [0, 1] as a
    viewer gets it; ``unchanged`` is the total of the contents themselves. Empty without contents."""
    sums: dict[str, float] = {}
    for content in contents:
        found = criterion(network(content).float().clamp(0, 1), content, style)
        found["unchanged"] = criterion(content, content, style)["total"]
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value.item() / len(contents)
    return sums


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, which matters to batch normalisation."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


__all__ = ["PerceptualLoss", "evaluating", "objective"]
