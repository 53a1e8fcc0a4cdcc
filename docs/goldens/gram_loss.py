from pictures import pictures

from zoo.encoders import load_encoder

encoder = load_encoder("vgg19", taps=[f"relu{i}_1" for i in range(1, 6)])
for output, _, style in pictures():
    pairs = zip(encoder(output).values(), encoder(style).values(), strict=True)
    rows = [[x[0].flatten(1).double() for x in pair] for pair in pairs]
    print(sum(float((a @ a.T / a.numel() - b @ b.T / b.numel()).square().sum()) for a, b in rows))
