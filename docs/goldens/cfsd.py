from pictures import pictures
from torch.nn import functional as F

from zoo.encoders import load_encoder

encoder = load_encoder("vgg19", taps=["relu3_1"])
for output, content, _ in pictures():
    rows = [encoder(image)["relu3_1"][0].flatten(1).T / (256 * 255 * 0.226) for image in (content, output)]
    wanted, found = ((x @ x.T).double().log_softmax(dim=1) for x in rows)
    print(float(F.kl_div(found, wanted, log_target=True, reduction="sum")))
