"""Label maps and objects of ``zoo stylize``: files that say what is where in content and style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.cli.common import read_image
from zoo.errors import InputError
from zoo.words import counted

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.images import Image
    from zoo.stylizer import Style, Stylizer


class Labels:
    """The label maps of a call: one of the content, one of every style.

    Raises InputError where there are not as many maps as pictures, or one has too many colors.
    """

    def __init__(
        self, content: str | None, styles: Sequence[str], contents: int, sources: Sequence[str], max_pixels: int | None
    ) -> None:
        from zoo import images

        if content is None or len(styles) != len(sources) or contents != 1:
            raise InputError(
                "Labels take one content with its --content-labels and one --style-labels per style, not "
                f"{counted(int(content is not None), 'content map')} for {counted(contents, 'content')} and "
                f"{counted(len(styles), 'style map')} for {counted(len(sources), 'style')}."
            )

        def read(name: str) -> tuple[str, Tensor]:
            return name, images.label_colors(read_image(name, "0", max_pixels), name)

        self._content = read(content)
        self._styles = {source: read(name) for source, name in zip(sources, styles, strict=True)}

    def of_style(self, source: str, image: Image) -> Style:
        """Return the style with its labels."""
        from zoo.stylizer import Style

        labels = self._fitted(self._styles[source], image).unique(return_inverse=True)[1]
        return Style(image.pixels, labels=labels)

    def of_content(self, photo: Image, source: str, image: Image) -> Tensor:
        """Return the labels of ``photo``, numbered as those of the style ``source`` are; InputError as there."""
        from zoo import images

        return images.paired_labels(self._fitted(self._content, photo), self._fitted(self._styles[source], image))[0]

    def _fitted(self, drawn: tuple[str, Tensor], picture: Image) -> Tensor:
        from zoo import images

        name, colors = drawn
        return images.fitted_labels(colors, name, picture)


def with_object(model: Stylizer, mask: str | None, subject: bool, max_pixels: int | None) -> Stylizer:
    """Return ``model`` for one object alone: where the file ``mask`` is white, or the person in the picture."""
    if mask is None and not subject:
        return model
    if mask is not None and subject:
        raise InputError("An object is given by --object or found by --subject: leave one out.")
    from zoo import images
    from zoo.controls.instance import Instance

    if mask is None:
        from zoo.controls.subject import person

        return Instance(model, person)
    found = images.selection(read_image(mask, "0", max_pixels), mask)

    def fitted(content: Tensor) -> Tensor:
        size = content.shape[-2], content.shape[-1]
        if not images.same_shape((found.shape[-2], found.shape[-1]), size):
            raise InputError(
                f"The mask '{mask}' is {found.shape[-1]} x {found.shape[-2]} pixels and the content {size[1]} x "
                f"{size[0]}: give the mask the content's shape."
            )
        return images.resize(found, size)

    return Instance(model, fitted)
