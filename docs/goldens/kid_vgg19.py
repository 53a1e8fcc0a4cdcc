import numpy as np
from pictures import pictures

from zoo.encoders import load_encoder

encoder = load_encoder("vgg19.normalised", taps=["relu4_1"])
rows = [
    [encoder((x * 255).round() / 255)["relu4_1"].mean((0, 2, 3)).double().numpy() for x in trio] for trio in pictures()
]
a, b = np.array(rows)[:, 0], np.array(rows)[:, 2]
aa, ab, bb = (((x @ y.T) / 512 + 1) ** 3 for x, y in ((a, a), (a, b), (b, b)))
print((aa.sum() - np.trace(aa)) / 6 + (bb.sum() - np.trace(bb)) / 6 - 2 * ab.mean())
