import torch
from pictures import pictures
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, normalize, pad

from zoo.weights import read_network

w = {name.removeprefix("net.slice"): value for name, value in read_network("stlpips.alex").items()}


def half(x, n):
    return avg_pool2d(avg_pool2d(pad(max_pool2d(x, n, 1), (2, 2, 2, 2), "reflect"), 2, 1), 2)


for output, content, _ in pictures():
    x, total = (2 * torch.cat([output, content]) - 1 - w["scaling_layer.shift"]) / w["scaling_layer.scale"], 0
    for i, n in enumerate(["1.0.", "2.5.", "3.9.", "4.11.", "5.13."]):
        x = conv2d(half(x, 3) if i in (1, 2) else x, w[n + "weight"], w[n + "bias"], padding=2 - (i > 1))
        x = (x if i else half(x, 1)).relu()
        total += (w[f"lin{i}.model.1.weight"] * normalize(x).diff(dim=0).square()).sum(1).mean()
    print(float(total))
