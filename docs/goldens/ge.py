import torch
from pictures import pictures

from zoo.encoders import load_encoder

encoder, cosine = load_encoder("vgg19", taps=[f"relu{i}_1" for i in range(2, 6)], pool="avg"), torch.cosine_similarity
for output, _, style in pictures():
    a, b = ([x[0].flatten(1).double() for x in encoder(image).values()] for image in (output, style))
    grams = sum(cosine((x @ x.T).flatten(), (y @ y.T).flatten(), dim=0) for x, y in zip(a, b, strict=True)) / 4
    bins = [[torch.histc(plane, 128, 0, 1).double() for plane in image[0]] for image in (output, style)]
    print(float(grams + sum(cosine(x, y, dim=0) for x, y in zip(*bins, strict=True)) / 3) / 2)
