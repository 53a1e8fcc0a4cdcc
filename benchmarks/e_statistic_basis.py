"""Compute the principal axes of the E statistic: of the covariance that features have on average over photographs.

    python benchmarks/e_statistic_basis.py PHOTOGRAPHS [--limit N] [--out zoo/metrics/e_statistic_basis.safetensors]

As in Yeh et al. 2020 (authors' code, ``PCA_Basis_Generater``): every photograph is scaled to a short side of 512, the
covariances of its features (divided by H W) are averaged over photographs, and the leading eigenvectors are kept: 32,
48, 128, 256 and 256 at relu1_1 .. relu5_1 of the original VGG-19. ``--limit`` takes so many, evenly spread by name.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from zoo import images
from zoo.encoders import load_encoder
from zoo.metrics.e_statistic import AXES, BASIS_FILE, SHORT_SIDE, TAPS, gaussian, scaled

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, help="folder of photographs, searched in depth")
    parser.add_argument("--limit", type=int, help="how many of them (default: all)")
    parser.add_argument("--described", default="", help="words on the photographs, kept in the file")
    parser.add_argument("--out", type=Path, default=BASIS_FILE)
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.photographs.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"{arguments.photographs} holds no photographs ({', '.join(sorted(SUFFIXES))}).")
    if arguments.limit:
        count = min(arguments.limit, len(paths))
        paths = [paths[i * len(paths) // count] for i in range(count)]

    encoder = load_encoder("vgg19", taps=TAPS)
    totals = {tap: torch.zeros(encoder.channels(tap), encoder.channels(tap), dtype=torch.float64) for tap in TAPS}
    with torch.inference_mode():
        for path in paths:
            for tap, features in encoder(scaled(images.read(path).pixels, SHORT_SIDE)).items():
                totals[tap] += gaussian(features)[1] / len(paths)
    basis = {}
    for tap, axes in zip(TAPS, AXES, strict=True):
        values, vectors = torch.linalg.eigh(totals[tap])
        basis[tap] = vectors.flip(1)[:, :axes].float().contiguous()
        share = values.flip(0)[:axes].sum() / values.sum()
        print(f"{tap}: {axes} of {len(values)} axes hold {share:.4f} of the variance")

    names = "\n".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    metadata = {
        "encoder": "vgg19",
        "weights_sha256": encoder.digest,
        "statistic": "leading eigenvectors of the mean over photographs of the features' covariances",
        "photographs": f"{len(paths)} {arguments.described}".strip(),
        "photographs_sha256": hashlib.sha256(names.encode()).hexdigest(),
        "geometry": f"short side {SHORT_SIDE} (bicubic, antialiased)",
        "script": "benchmarks/e_statistic_basis.py",
    }
    with tempfile.TemporaryDirectory(dir=arguments.out.parent) as folder:
        part = Path(folder) / "part"
        save_file(basis, part, metadata)
        part.chmod(0o644)  # safetensors makes files that only their owner reads
        os.replace(part, arguments.out)


if __name__ == "__main__":
    main()
