"""Pictures as local affine maps of a photograph's colors: the matting Laplacian and the guided filter.

In every window w the colors V of a picture are compared with the best affine map of the photograph's, a_w I + b_w.
What is left over, summed over windows, is V^T L V with the matting Laplacian L (Levin, Lischinski, Weiss, *A Closed
Form Solution to Natural Image Matting*, CVPR 2006, eq. 5 to 12)::

    V^T L V = sum_w min_(a, b)  sum_(i in w) (V_i - a I_i - b)^2 + epsilon |a|^2
    (L V)_i = sum_(w with i)    V_i - a_w I_i - b_w

and the mean of the maps over the windows of a pixel, applied to the photograph, is the guided filter (He, Sun, Tang,
*Guided Image Filtering*, ECCV 2010). So neither needs a matrix: sums over windows are all there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from zoo.device import exact
from zoo.nn.fast import symmetric_inverse
from zoo.nn.tiles import Local, Whole, boxes_of, store


class LocalAffine:
    """The windows of a photograph ``guide`` (1, 3, H, W) in [0, 1], ``radius`` pixels to every side of their middle.

    ``epsilon`` keeps the maps of flat windows small; it counts as much as one squared difference. All sums are float64:
    float32 loses the variance of windows that are nearly flat.
    """

    def __init__(self, guide: Tensor, radius: int = 1, epsilon: float = 1e-7) -> None:
        self.guide = exact(guide).double()[0]
        self.radius = radius
        height, width = guide.shape[-2:]
        ones = self.guide.new_ones((1, height, width))
        self.count = self._sums(ones)
        self.mean = self._sums(self.guide) / self.count
        products = (self.guide[:, None] * self.guide[None]).flatten(0, 1)
        covariance = (self._sums(products) / self.count).unflatten(0, (3, 3)) - self.mean[:, None] * self.mean[None]
        for channel in range(3):
            covariance[channel, channel] += epsilon / self.count[0]
        self.inverse = symmetric_inverse(covariance)

    def _sums(self, x: Tensor) -> Tensor:
        """Sums (C, H, W) over the window of each pixel, cut off at the borders."""
        for axis in (-1, -2):
            r, length = min(self.radius, x.shape[axis] - 1), x.shape[axis]
            if r == 1:
                total = x.clone()
                total.narrow(axis, 1, length - 1).add_(x.narrow(axis, 0, length - 1))
                total.narrow(axis, 0, length - 1).add_(x.narrow(axis, 1, length - 1))
                x = total
                continue
            total = torch.cumsum(x, dim=axis)
            last = torch.arange(length, device=x.device).add(r).clamp_max(length - 1)
            upper = total.index_select(axis, last)
            first = total.narrow(axis, 0, length - r - 1)
            upper.narrow(axis, r + 1, length - r - 1).sub_(first)
            x = upper
        return x

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The affine maps a (K, 3, H, W) and b (K, H, W) to channels ``image`` (K, H, W), and residuals (K, H, W)."""
        mean = self._sums(image) / self.count
        products = (image[:, None] * self.guide[None]).flatten(0, 1)
        covariance = (self._sums(products) / self.count).unflatten(0, (len(image), 3)) - mean[:, None] * self.mean[None]
        rows = []
        for row in self.inverse:
            first = covariance[:, 0] * row[0]
            rows.append(first.addcmul_(covariance[:, 1], row[1]).addcmul_(covariance[:, 2], row[2]))
        a = torch.stack(rows, dim=1)
        b = mean - (a * self.mean[None]).sum(dim=1)
        variance = self._sums(image.square()) / self.count - mean.square()
        return a, b, (variance - (a * covariance).sum(dim=1)) * self.count

    def laplacian(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What windows and channels of ``image`` (1, K, H, W) have of V^T L V, and L V: both of its shape, float64."""
        values = exact(image).double()[0]
        a, b, residual = self.maps(values)
        # Each window belongs to as many pixels as it holds, and each pixel to as many windows.
        spread = self._sums(a.flatten(0, 1)).view_as(a)
        applied = self.count * values - (spread * self.guide[None]).sum(dim=1) - self._sums(b)
        return residual[None], applied[None]

    def slope(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """V^T L V of ``image`` (1, K, H, W), summed over channels, and its gradient 2 L V."""
        residual, applied = self.laplacian(image)
        return residual.sum().to(image), (2 * applied).to(image)

    def energy(self, image: Tensor) -> Tensor:
        """V^T L V of ``image`` (1, K, H, W), summed over channels; differentiable once, float32 or better."""
        found: Tensor = _Energy.apply(image, self)
        return found

    def filtered(self, image: Tensor) -> Tensor:
        """The guided filter: ``image`` (1, K, H, W) as the photograph under the mean of each pixel's maps."""
        values = exact(image).double()[0]
        a, b, _ = self.maps(values)
        spread = self._sums(a.flatten(0, 1)).view_as(a)
        result = ((spread * self.guide[None]).sum(dim=1) + self._sums(b)) / self.count
        return result[None].to(image)


class TiledAffine:
    """The same numbers by tiles of ``side`` pixels: nothing is kept of a window, which takes 128 bytes per pixel.

    What a pixel gets depends on the windows that hold it, and these on their own pixels, so the halo is two radii.
    """

    def __init__(self, guide: Tensor, radius: int, epsilon: float, side: int) -> None:
        self.guide, self.radius, self.epsilon, self.side = guide, radius, epsilon, side

    def _map(self, image: Tensor, function: Callable[[LocalAffine, Tensor], Tensor]) -> Local:
        def of_part(guide: Tensor, part: Tensor) -> Tensor:
            return function(LocalAffine(guide, self.radius, self.epsilon), part)

        return Local(of_part, Whole(self.guide), Whole(image), halo=2 * self.radius)

    def slope(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`LocalAffine.slope`."""
        total, gradient = torch.zeros((), dtype=torch.float64), torch.empty_like(image)
        both = self._map(image, lambda windows, part: torch.cat(windows.laplacian(part), dim=1))
        for box in boxes_of(both, self.side):
            residual, applied = both.read(box).chunk(2, dim=1)
            total += residual.sum().cpu()
            gradient[..., box[0], box[1]] = (2 * applied).to(image)
        return total.to(image), gradient

    def energy(self, image: Tensor) -> Tensor:
        """As :meth:`LocalAffine.energy`."""
        found: Tensor = _Energy.apply(image, self)
        return found

    def filtered(self, image: Tensor) -> Tensor:
        """As :meth:`LocalAffine.filtered`."""
        return store(self._map(image, LocalAffine.filtered), self.side).tensor


class _Energy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, windows: LocalAffine | TiledAffine) -> Tensor:
        energy, gradient = windows.slope(image.detach())
        ctx.save_for_backward(gradient)
        return energy

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # torch types ctx by position
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], None


__all__ = ["LocalAffine", "TiledAffine"]
