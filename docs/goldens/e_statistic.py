import torch
from pictures import pictures
from torch.distributions import MultivariateNormal, kl_divergence

from zoo import images
from zoo.encoders import load_encoder
from zoo.metrics.e_statistic import read_basis

encoder, basis = load_encoder("vgg19", taps=[f"relu{i}_1" for i in range(1, 6)]), read_basis()
for output, _, style in pictures():
    normals = []
    for image in (output, style):
        scaled = images.resize(image, tuple(round(n * 512 / min(image.shape[2:])) for n in image.shape[2:]))
        rows = [basis[tap].T @ x[0].flatten(1).double() for tap, x in encoder(scaled).items()]
        normals.append([MultivariateNormal(x.mean(1), torch.cov(x, correction=0)) for x in rows])
    print(float(sum(-kl_divergence(*pair).log() for pair in zip(*normals, strict=True)) / 5))
