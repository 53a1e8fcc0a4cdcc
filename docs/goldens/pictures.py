"""The three fixed pairs of the recorded values: output, content and style, 128 pixels on the long side."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from zoo import images

PAIRS = (("astronaut", "swirls"), ("coffee", "woodblock"), ("astronaut", "mosaic"))


def pictures() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Each (1, 3, H, W) in [0, 1]; the output is the content under a veil of the style, as 8 bits hold it."""
    for names in PAIRS:
        content, style = (images.read(f"builtin:{name}", size="long:128").pixels for name in names)
        veiled = 0.7 * content + 0.3 * images.resize(style, (content.shape[-2], content.shape[-1]))
        yield (veiled * 255).round() / 255, content, style
