from pictures import pictures

from zoo.encoders import load_encoder

encoder = load_encoder("vgg19", taps=["relu4_2"])
for output, content, _ in pictures():
    print(float((encoder(output)["relu4_2"] - encoder(content)["relu4_2"]).double().square().mean()))
