"""SIFID: the Fréchet distance between output and style as clouds of Inception features.

Shaham, Dekel and Michaeli, "SinGAN: learning a generative model from a single natural image", ICCV 2019, section 3.1,
as in SIFID/ of their repository: torchvision's Inception v3 up to Conv2d_4a_3x3 (192 channels, before the second
pooling), pixels in [-1, 1], pictures at their own size; every position is one sample of a Gaussian, and

    d = |m_1 - m_2|^2 + Tr(S_1 + S_2 - 2 (S_1 S_2)^1/2)

| authors' code | here | why |
|---|---|---|
| PNG files, already in [0, 1], are divided by 255 once more | [0, 1] goes to [-1, 1] | a fault |
| matrix square root of the product (scipy), jitter where it is singular | eigenvalues of S_1^1/2 S_2 S_1^1/2 | exact |
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zoo.errors import InputError, WeightsError
from zoo.metrics.base import Metric
from zoo.nn.whitening import Moments, moments
from zoo.weights import read_network

NETWORK = "inception.torchvision"
# Names of the layers in torchvision's network; None is the pooling between them.
LAYERS = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", None, "Conv2d_3b_1x1", "Conv2d_4a_3x3")
MIN_SIZE = 23  # pixels a side for 2 x 2 positions: a single one has no covariance


class SIFID(Metric):
    """Fréchet distance of the features of output and style, 0 for equal pictures. Symmetric.

    Raises DownloadRequiredError where the network is not on this machine.
    """

    def _build(self) -> None:
        self.trunk = trunk(read_network(NETWORK)).to(self.device)

    def _moments(self, image: Tensor) -> Moments:
        if min(image.shape[-2:]) < MIN_SIZE:
            raise InputError(f"SIFID needs images of at least {MIN_SIZE} pixels a side.")
        return moments(self.trunk(2 * image - 1))

    def _measure(self, output: Tensor, content: Tensor, style: Tensor) -> Tensor:
        return frechet(self._moments(output), self.remember(style, self._moments))


def trunk(state: Mapping[str, Tensor]) -> nn.Sequential:
    """torchvision's Inception v3 up to Conv2d_4a_3x3 with the weights of ``state``; WeightsError if they misfit."""
    from torchvision.models import inception_v3

    with torch.device("meta"):  # structure only: no memory, no random numbers
        whole = inception_v3(weights=None, init_weights=False)
    layers = [nn.MaxPool2d(3, stride=2) if name is None else whole.get_submodule(name) for name in LAYERS]
    for name, layer in zip(LAYERS, layers, strict=True):
        if name is not None:
            own = {k.removeprefix(f"{name}."): v.clone() for k, v in state.items() if k.startswith(f"{name}.")}
            try:
                layer.load_state_dict(own, assign=True)
            except RuntimeError as error:
                raise WeightsError(f"The weights of {NETWORK} do not fit {name}: {error}.") from error
    return nn.Sequential(*layers).eval().requires_grad_(False)


def frechet(first: Moments, second: Moments) -> Tensor:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians, a float64 scalar."""
    values, vectors = torch.linalg.eigh(first.covariance)
    root = vectors * values.clamp_min(0).sqrt()  # S_1 = root root^T, and S_1 S_2 has the eigenvalues of root^T S_2 root
    middle = torch.linalg.eigvalsh(root.T @ second.covariance @ root).clamp_min(0).sqrt().sum()
    traces = first.covariance.trace() + second.covariance.trace()
    return ((first.mean - second.mean).square().sum() + traces - 2 * middle).clamp_min(0)
