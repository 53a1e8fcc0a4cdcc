import numpy as np
from pictures import pictures
from skimage.color import rgb2lab


def hues(image):
    _, a, b = rgb2lab(image[0].double().numpy(), channel_axis=0)
    bins = np.degrees(np.arctan2(b, a)) % 360 // 15
    return [np.mean((bins == k) & (np.hypot(a, b) > 12)) for k in range(24)]


for output, _, style in pictures():
    found, had = hues(output), hues(style)
    print(sum(found[k] for k in range(24) if had[k - 1] + had[k] + had[(k + 1) % 24] < 0.004))
