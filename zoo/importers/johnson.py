"""Johnson: networks of the PyTorch example fast_neural_style, one file per style; the file's name is the style's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.errors import WeightsError
from zoo.importers import Draft, Source
from zoo.methods.johnson import import_state


def convert(files: Sequence[Source], encoder: Source | None) -> Draft:
    """Keys ``body...`` of a single network, ``{style}.body...`` of several, as :class:`zoo.methods.johnson.Johnson`
    reads them. WeightsError where a file holds another network."""
    if encoder is not None:
        raise WeightsError("Johnson's networks read images, not features: leave --encoder out.")
    draft = Draft({}, {}, [])
    styles = [Path(source.name).stem for source in files]
    for source, style in zip(files, styles, strict=True):
        if styles.count(style) > 1:
            raise WeightsError(f"Two files are called {style}, as the styles in them would be: rename one.")
        prefix = "" if len(files) == 1 else f"{style}."
        try:
            state = import_state(source.state)
        except WeightsError as error:
            raise WeightsError(f"{source.name}: {error}") from error
        draft.state |= {prefix + key: value for key, value in state.items()}
    # import_state has compared names and shapes itself.
    draft.expected = {key: tuple(value.shape) for key, value in draft.state.items()}
    draft.notes.append("As published; styles: " + ", ".join(styles) + ".")
    if len(files) == 1:
        draft.notes.append("The style is called like the file written.")
    return draft
