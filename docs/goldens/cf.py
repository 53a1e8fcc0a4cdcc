from pictures import pictures
from torch.nn.functional import cosine_similarity

from zoo.encoders import load_encoder

encoder = load_encoder("vgg19", taps=["relu4_1", "relu5_1"], pool="avg")
for output, content, _ in pictures():
    a, b = encoder(output), encoder(content)
    print(sum(float(cosine_similarity(a[tap].flatten(), b[tap].flatten(), dim=0)) for tap in a) / 2)
