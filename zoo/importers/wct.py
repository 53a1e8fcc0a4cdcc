"""WCT: the authors' ``feature_invertor_conv{k}_1`` (Li et al. 2017), one file per level, any of the five.

Their decoders read the features of their own normalised VGG-19, whose channel scales differ from ours by a few percent;
read as they are, images come out with slightly wrong contrast. Given the authors' encoder too (one file that reaches
the highest level), each decoder's first convolution is rescaled to read ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from zoo.errors import WeightsError
from zoo.importers import Draft, Source
from zoo.importers.vgg import convert_decoder, fit_to_our_encoder, guess_level


def convert(files: Sequence[Source], encoder: Source | None) -> Draft:
    """Keys ``level{k}.conv...`` as :class:`zoo.methods.wct.WCT` reads them."""
    whole = Draft({}, {}, [])
    levels: dict[int, str] = {}
    for source in files:
        level = guess_level(source)
        if level in levels:
            raise WeightsError(f"{levels[level]} and {source.name} are both of level {level}: give one of them.")
        levels[level] = source.name
        draft = convert_decoder(source, level, f"level{level}.")
        if encoder is not None:
            fit_to_our_encoder(draft, level, encoder, f"level{level}.")
        whole.state |= draft.state
        whole.expected = {**whole.expected, **draft.expected}
        whole.renamed += draft.renamed
        whole.unexpected += draft.unexpected
    named = ",".join(str(level) for level in sorted(levels, reverse=True))
    whole.notes.append(f"Decoders of levels {named}, as published by the authors of WCT.")
    whole.notes.append(FITTED if encoder is not None else UNFITTED)
    if len(levels) < 5:
        whole.notes.append(f"Use it with --levels {named}.")
    return whole


FITTED = "The first convolutions are rescaled to read vgg19.normalised of this package."
UNFITTED = (
    "Made for the authors' encoder: with vgg19.normalised of this package, whose channels differ by a few percent, "
    "contrast is slightly off; give their encoder to rescale."
)
