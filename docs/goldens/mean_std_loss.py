from pictures import pictures

from zoo.encoders import load_encoder

encoder = load_encoder("vgg19.normalised", taps=[f"relu{i}_1" for i in range(1, 5)], padding="reflect")
for output, _, style in pictures():
    pairs = zip(encoder(output).values(), encoder(style).values(), strict=True)
    rows = [[x[0].flatten(1).double() for x in pair] for pair in pairs]
    means = sum(float((a.mean(1) - b.mean(1)).square().sum()) for a, b in rows)
    stds = [[(x.var(1, correction=0) + 1e-5).sqrt() for x in pair] for pair in rows]
    print(means + sum(float((a - b).square().sum()) for a, b in stds))
