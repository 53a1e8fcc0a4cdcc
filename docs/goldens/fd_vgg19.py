import numpy as np
from pictures import pictures
from scipy.linalg import sqrtm

from zoo.encoders import load_encoder

encoder = load_encoder("vgg19.normalised", taps=["relu4_1"])
rows = [
    [encoder((x * 255).round() / 255)["relu4_1"].mean((0, 2, 3)).double().numpy() for x in trio] for trio in pictures()
]
a, b = np.array(rows)[:, 0], np.array(rows)[:, 2]
first, second = np.cov(a.T), np.cov(b.T)
root = sqrtm(sqrtm(first).real @ second @ sqrtm(first).real).real
print(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(first + second - 2 * root))
