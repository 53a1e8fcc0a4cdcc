"""AdaIN: the decoder of Huang and Belongie 2017 as ports of it publish it, ``decoder.pth`` (an nn.Sequential).

It reads relu4_1 of the authors' normalised VGG-19 (``vgg_normalised.pth`` beside it); see wct.py on the scales.
"""

from __future__ import annotations

from collections.abc import Sequence

from zoo.errors import WeightsError
from zoo.importers import Draft, Source
from zoo.importers.vgg import convert_decoder, fit_to_our_encoder
from zoo.importers.wct import FITTED, UNFITTED


def convert(files: Sequence[Source], encoder: Source | None) -> Draft:
    """Keys ``conv4_1.weight`` and so on as :class:`zoo.methods.adain.AdaIN` reads them."""
    if len(files) != 1:
        raise WeightsError(f"AdaIN has one decoder: give one file, not {len(files)}.")
    draft = convert_decoder(files[0], 4)
    if encoder is not None:
        fit_to_our_encoder(draft, 4, encoder)
    draft.notes.append(FITTED if encoder is not None else UNFITTED)
    return draft
