"""One object in a style, the rest as it was, and a border that follows where the two pictures agree.

Castillo, De, Han, Singh, Yadav, Goldstein, *Son of Zorn's Lemma: Targeted Style Transfer Using Instance-Aware Semantic
Segmentation*, ICASSP 2017. The whole picture is stylized and the object pasted into the photograph. Which pixels near
its outline are whose is a binary Markov random field, solved exactly by a minimum cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.controls.base import Control
from zoo.errors import ConfigError, InputError
from zoo.stylizer import Call, Mix, Stylized, Stylizer, Traits

# Capacities of a cut are whole numbers: this many to a full difference of color.
_UNIT = 10_000
# More than the seam all around a pixel can cost: a cut pays neither this nor more.
_MOST = 10.0
# Least cost of a seam between two pixels, so that where both pictures agree it is short.
_SHORT = 0.01


def border_labels(content: Tensor, stylized: Tensor, mask: Tensor, band: float, pull: float) -> Tensor:
    """Return which pixels (H, W) bool are the stylized picture's: the mask, but for a ``band`` around its outline.

    ``content`` and ``stylized`` are (1, 3, H, W), ``mask`` (H, W) bool. Between neighbors of different labels a seam
    costs the difference of both pictures at both pixels, as a cut through a place where they agree is not seen; a pixel
    that leaves the mask's side costs ``pull`` times its distance from the outline in bands. Of what is narrower than
    four bands, half stays as the mask says.
    """
    inside = mask.cpu().numpy()
    away = _distance(inside)
    band = _reach(inside, away, band)
    free = away < band
    seam = (content - stylized).abs().mean(dim=1)[0].cpu().numpy()
    pixels = int(free.sum())
    source, sink = pixels, pixels + 1
    # Pixels without a choice are the two ends of the network themselves.
    node = np.where(inside, source, sink)
    node[free] = np.arange(pixels)
    tails, heads, costs = [], [], []
    for here, there in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        open_ = free[here] | free[there]
        cost = (_SHORT + seam[here] + seam[there])[open_]
        one, other = node[here][open_], node[there][open_]
        tails += [one, other]
        heads += [other, one]
        costs += [cost, cost]
    ours, own = inside[free], pull * away[free] / band
    tails.append(np.where(ours, source, node[free]))
    heads.append(np.where(ours, node[free], sink))
    costs.append(own)
    labels = inside.copy()
    labels[free] = _source_side(np.concatenate(tails), np.concatenate(heads), np.concatenate(costs), source, sink)
    return torch.from_numpy(labels).to(mask.device)


def _source_side(tails: np.ndarray, heads: np.ndarray, costs: np.ndarray, source: int, sink: int) -> np.ndarray:
    """Which of the nodes before ``source`` a minimum cut of the directed edges leaves with it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    useful = (heads != source) & (tails != sink)
    weights = np.round(np.minimum(costs[useful], _MOST) * _UNIT).astype(np.int32)
    graph = coo_array((weights, (tails[useful], heads[useful])), shape=(sink + 1, sink + 1)).tocsr().astype(np.int32)
    left = graph - maximum_flow(graph, source, sink).flow
    left.data = np.maximum(left.data, 0)
    left.eliminate_zeros()
    chosen = np.zeros(sink + 1, dtype=bool)
    chosen[breadth_first_order(left, source, return_predecessors=False)] = True
    return chosen[:source]


def _reach(inside: np.ndarray, away: np.ndarray, band: float) -> float:
    """The band's width, at most half of what is inside and outside: the middle of a small object is its own."""
    return min(band, away[inside].max() / 2, away[~inside].max() / 2)


def _distance(inside: np.ndarray) -> np.ndarray:
    """How far each pixel is from the outline of the region ``inside``, from 0.5 on."""
    from scipy.ndimage import distance_transform_edt

    within, outside = (np.asarray(distance_transform_edt(side)) for side in (inside, ~inside))
    return np.where(inside, within, outside) - 0.5


class Instance(Control):
    """Any method on one object: the rest of the photograph stays, bit for bit.

    ``mask`` is (1, 1, H, W) in [0, 1] of the content's size, 1 on the object, (B, 1, H, W) for a batch, or a function
    that finds such a mask in a content (1, 3, H, W), as :func:`zoo.controls.subject.person` does. Pixels within
    ``band`` of its outline go to whom the cut gives them and are blended over ``softness`` pixels. Raises InputError
    for a mask of another size or one that covers nothing or everything, ConfigError for a band under 1.

    | paper | here | why |
    | --- | --- | --- |
    | masks by a network for instances | given, or of a person by a small network | none of instances ships |
    | unary terms: distance to the mask, energy of the stylization | the distance alone | the other is in the seam |
    | pairwise terms: contrast of color | how far both pictures differ at both pixels | there a seam is seen |
    | a band around the outline | the same, on pixels, by minimum cut | exact, a second |
    | anti-aliasing | labels blurred within the band | the same |
    """

    def __init__(
        self,
        model: Stylizer,
        mask: Tensor | Callable[[Tensor], Tensor],
        band: int = 8,
        pull: float = 0.1,
        softness: float = 0.7,
    ) -> None:
        if band < 1 or pull < 0 or softness < 0:
            raise ConfigError("Instance takes a band of at least 1 pixel, and a pull and softness of at least 0.")
        if isinstance(mask, Tensor):
            _check(mask)
        self.mask, self.band, self.pull, self.softness = mask, band, pull, softness
        super().__init__(model)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"mask": self.mask, "band": self.band, "pull": self.pull, "softness": self.softness}

    @property
    def _made_with(self) -> str:
        # The style is encoded as without a mask, whose pixels do not belong into a name.
        return f"{type(self).__name__} {self.model._made_with}"

    def _traits(self, inner: Traits) -> Traits:
        return dataclasses.replace(inner, texture=False)

    def _stylize(self, content: Tensor, style: Mix, call: Call) -> Stylized:
        masks = self._masks(content)

        def finish(image: Tensor) -> Tensor:
            image = image.to(content).clamp(0, 1)
            return torch.cat([self._composite(*x) for x in zip(content.split(1), image.split(1), masks, strict=True)])

        result = self._call(content, self._inner(style), call, finish)
        return dataclasses.replace(result, image=finish(result.image))

    def _masks(self, content: Tensor) -> Tensor:
        """The object in each content, (B, 1, H, W) bool."""
        if isinstance(self.mask, Tensor):
            mask = self.mask.to(content.device)
        else:
            mask = torch.cat([self.mask(one) for one in content.split(1)]).to(content.device)
            _check(mask)
        if mask.shape[-2:] != content.shape[-2:] or mask.shape[0] not in (1, content.shape[0]):
            raise InputError(
                f"The object's mask is {mask.shape[-1]} x {mask.shape[-2]} pixels, the content "
                f"{content.shape[-1]} x {content.shape[-2]}."
            )
        return (mask > 0.5).expand(content.shape[0], -1, -1, -1)

    def _composite(self, content: Tensor, stylized: Tensor, mask: Tensor) -> Tensor:
        labels = border_labels(content, stylized, mask[0], self.band, self.pull).float()
        if self.softness:
            labels = _blurred(labels, self.softness)
        # Blurring reaches out of the band only where the cut runs along its edge; there the mask decides.
        inside = mask[0].cpu().numpy()
        away = _distance(inside)
        free = torch.from_numpy(away < _reach(inside, away, self.band)).to(mask.device)
        labels = torch.where(free, labels, mask[0].float())
        blended = content + labels * (stylized - content)
        return torch.where(labels == 1, stylized, torch.where(labels == 0, content, blended))


def _check(mask: Tensor) -> None:
    """InputError unless every ``mask`` (B, 1, H, W) covers something and not everything."""
    if mask.dim() != 4 or mask.shape[1] != 1:
        raise InputError(f"An object's mask must have shape (1, 1, H, W), not {tuple(mask.shape)}.")
    for one in mask:
        share = float((one > 0.5).float().mean())
        if share in (0.0, 1.0):
            raise InputError(f"The object's mask covers {'nothing' if share == 0 else 'the whole picture'}.")


def _blurred(labels: Tensor, deviation: float) -> Tensor:
    """``labels`` (H, W) under a Gaussian window."""
    reach = max(1, round(3 * deviation))
    at = torch.arange(-reach, reach + 1, dtype=labels.dtype, device=labels.device)
    window = torch.exp(-(at**2) / (2 * deviation**2))
    window = window / window.sum()
    padded = F.pad(labels[None, None], (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, window.view(1, 1, 1, -1))
    return F.conv2d(rows, window.view(1, 1, -1, 1))[0, 0]


__all__ = ["Instance", "border_labels"]
