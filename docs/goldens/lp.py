from pictures import pictures
from torch.nn.functional import normalize, unfold

from zoo.encoders import load_encoder

encoder = load_encoder("vgg19", taps=["relu3_1", "relu4_1"], pool="avg")
for output, _, style in pictures():
    pairs = zip(encoder(output).values(), encoder(style).values(), strict=True)
    patches = [[normalize(unfold(x, 3)[0], dim=0) for x in pair] for pair in pairs]
    best = [((b.T @ a).max(dim=0), (b.T @ b).argmax(dim=0)) for a, b in patches]
    print(sum(float(m.values.mean()) + len(m.indices.unique()) / len(own.unique()) for m, own in best) / 4)
