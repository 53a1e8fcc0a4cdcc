import torch
from pictures import pictures


def histogram(image):
    pixels, bins = image[0].flatten(1).double(), torch.linspace(-3, 3, 64, dtype=torch.float64)[:, None, None]
    ratios = (pixels + 1e-6).log()[:, None] - (pixels + 1e-6).log()  # (channel, other, pixel)
    k = 1 / (1 + ((ratios - bins[:, None]) / 0.02) ** 2)  # (bin, channel, other, pixel)
    weight = (pixels.square().sum(0) + 1e-6).sqrt()
    planes = torch.stack([(k[:, c, a] * weight) @ k[:, c, b].T for c, (a, b) in enumerate([(1, 2), (0, 2), (0, 1)])])
    return planes / (planes.sum() + 1e-6)


for output, _, style in pictures():
    print(float((histogram(output).sqrt() - histogram(style).sqrt()).square().sum().div(2).sqrt()))
