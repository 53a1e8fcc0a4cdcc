import numpy as np
from pictures import pictures
from skimage.metrics import structural_similarity

for output, content, _ in pictures():
    a, b = (np.tensordot((0.299, 0.587, 0.114), image[0].double().numpy(), 1) for image in (output, content))
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    print(structural_similarity(a, b, data_range=1.0, **gaussian))
