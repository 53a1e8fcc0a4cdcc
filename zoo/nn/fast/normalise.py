"""Instance normalisation as the batch normalisation of single images, in place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Torch7's and TensorFlow slim's instance normalisation alike.
EPS = 1e-5


def instance_norm(features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Each image's channels to mean ``shift`` and deviation ``scale``: (B, C, H, W) in, the same shape and format out.

    ``scale`` and ``shift`` are (C,) for all images or (B, C), a row each; float32. The population's variance plus EPS.
    Without gradients, on a CPU, ``features`` are overwritten and returned.
    """
    if torch.compiler.is_compiling():
        # A traced graph (export) has no loop over a batch whose size it does not know.
        return plain_instance_norm(features, scale, shift)
    # Batch normalisation of one image is instance normalisation, and its channels-last kernel is 3 to 20 times as
    # fast on a CPU as F.instance_norm, which copies to NCHW and back.
    images = features.split(1)
    rows = [(scale, shift)] * len(images) if scale.dim() == 1 else list(zip(scale, shift, strict=True))
    if not torch.is_grad_enabled() and features.device.type == "cpu":
        # In place, the same numbers take a third less time, and far less where a new map's memory comes page by page.
        for image, (weight, bias) in zip(images, rows, strict=True):
            moments = torch.empty(0), torch.empty(0)
            torch.native_batch_norm(image, weight, bias, None, None, True, 0.0, EPS, out=(image, *moments))
        return features
    done = [
        F.batch_norm(image, None, None, weight, bias, training=True, momentum=0.0, eps=EPS)
        for image, (weight, bias) in zip(images, rows, strict=True)
    ]
    return done[0] if len(done) == 1 else torch.cat(done)


def plain_instance_norm(features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The reference of :func:`instance_norm`."""
    if scale.dim() == 1:
        return F.instance_norm(features, weight=scale, bias=shift, eps=EPS)
    return torch.addcmul(shift[..., None, None], F.instance_norm(features, eps=EPS), scale[..., None, None])
