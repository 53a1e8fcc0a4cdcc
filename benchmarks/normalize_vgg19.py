"""Compute the scales of ``vgg19.normalised``: one per channel, so that its mean activation over photographs is 1.

    python benchmarks/normalize_vgg19.py PHOTOGRAPHS [--out zoo/encoders/vgg19_normalised.safetensors] [--like FILE]

Gatys, Ecker and Bethge (2015) scaled VGG-19 so that every filter's mean activation over images and positions equals
one; since ReLU commutes with a positive factor this changes no other property of the network. AdaIN and WCT use that
network. Here the mean is taken after the ReLU, over all positions of all photographs, each scaled (bilinear,
antialiased) to a short side of 256 pixels and cropped to its middle 224 x 224: the geometry of the network's own
evaluation. Pooling is max and padding zeros, as trained. Over 635 photographs of ImageNet the median ratio to the
scales that WCT published is 1.008, 0.993, 1.019, 0.998 and 1.035 on conv1_1 .. conv3_1; with a bicubic filter, which
keeps more contrast, it is 0.946, 0.935, 0.978, 0.966 and 0.986.

``--like`` takes the authors' file (``vgg_normalised_conv3_1.pth`` of WCT) and prints how the two sets of scales agree.
A channel that no photograph activates keeps scale 1.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from zoo.encoders import load_encoder
from zoo.encoders.catalog import vgg_layers
from zoo.encoders.sources import caffe_layers
from zoo.registry import load_registry

SHORT_SIDE, CROP = 256, 224
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
LABELS = [layer.label for layer in vgg_layers("vgg19") if layer.kind == "conv"]


def photograph(path: Path) -> Tensor:
    """The image as (1, 3, 224, 224), RGB in [0, 1]."""
    image = Image.open(path).convert("RGB")
    factor = SHORT_SIDE / min(image.size)
    image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BILINEAR)
    left, top = (image.width - CROP) // 2, (image.height - CROP) // 2
    pixels = np.array(image.crop((left, top, left + CROP, top + CROP)))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def mean_activations(paths: list[Path]) -> dict[str, Tensor]:
    """Mean of every channel after its ReLU, by label, float64."""
    encoder = load_encoder("vgg19", taps=[f"relu{label}" for label in LABELS])
    sums = {label: torch.zeros(encoder.channels(f"relu{label}"), dtype=torch.float64) for label in LABELS}
    with torch.inference_mode():
        for path in paths:
            for tap, features in encoder(photograph(path)).items():
                sums[tap.removeprefix("relu")] += features.mean((0, 2, 3), dtype=torch.float64)
    return {label: total / len(paths) for label, total in sums.items()}


def published_scales(path: Path) -> dict[str, Tensor]:
    """The authors' scales: their biases divided by the network's own, for the layers their file holds."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    biases = [value for key, value in state.items() if key.endswith(".bias")][1:]  # the first is the preprocessing
    labels = LABELS[: len(biases)]
    raw = caffe_layers(labels)
    return {label: theirs.double() / raw[label][1].double() for label, theirs in zip(labels, biases, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="folder of photographs, searched in depth")
    parser.add_argument("--out", type=Path, default=Path("zoo/encoders/vgg19_normalised.safetensors"))
    parser.add_argument("--described", default="", help="words on the photographs, kept in the file")
    parser.add_argument("--like", type=Path, help="the authors' vgg_normalised_conv3_1.pth, to compare with")
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.photographs.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"{arguments.photographs} holds no photographs ({', '.join(sorted(SUFFIXES))}).")

    means = mean_activations(paths)
    scales = {f"relu{k}": torch.where(v > 0, 1 / v, 1.0).float() for k, v in means.items()}
    for label, mean in means.items():
        print(f"{label}: mean activation {mean.min():.4g} to {mean.max():.4g}, {int((mean == 0).sum())} never active")
    if arguments.like:
        for label, theirs in published_scales(arguments.like).items():
            ratio = scales[f"relu{label}"].double() / theirs
            low, middle, high = (float(ratio.quantile(q)) for q in (0.1, 0.5, 0.9))
            print(f"{label}: ours / theirs median {middle:.4f}, 80 % of channels in {low:.3f} to {high:.3f}")

    names = "\n".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    metadata = {
        "encoder": "vgg19",
        "weights_sha256": load_registry().encoders["vgg19"].sha256,
        "statistic": "1 / mean after the ReLU, over all positions of all photographs; 1 where never active",
        "photographs": f"{len(paths)} {arguments.described}".strip(),
        "photographs_sha256": hashlib.sha256(names.encode()).hexdigest(),
        "geometry": f"short side {SHORT_SIDE} (bilinear, antialiased), middle {CROP} x {CROP}",
        "pooling": "max",
        "padding": "zeros",
        "script": "benchmarks/normalize_vgg19.py",
    }
    with tempfile.TemporaryDirectory(dir=arguments.out.parent) as folder:
        part = Path(folder) / "part"
        save_file(scales, part, metadata)
        part.chmod(0o644)  # safetensors makes files that only their owner reads
        os.replace(part, arguments.out)


if __name__ == "__main__":
    main()
