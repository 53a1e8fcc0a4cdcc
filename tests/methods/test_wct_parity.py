"""The authors' WCT weights through our importer and decoder reconstruct as published; needs reference weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo import images
from zoo.encoders import load_encoder
from zoo.importers import import_weights, read_source
from zoo.importers.vgg import channel_ratios, encoder_entries
from zoo.nn.decoder import VGGDecoder
from zoo.training.reconstruction import psnr
from zoo.weights import read_state

# Of the reference weights' README: whole multiples of 32 from the top left, reflection padding, float32.
SIZES = {"astronaut": (512, 512), "coffee": (384, 576), "chelsea": (288, 448)}
PUBLISHED = {
    1: {"astronaut": 28.6, "coffee": 25.9, "chelsea": 29.1},
    2: {"astronaut": 33.0, "coffee": 30.9, "chelsea": 36.0},
    3: {"astronaut": 28.5, "coffee": 27.0, "chelsea": 31.1},
}


class AuthorsEncoder(nn.Module):
    """Their normalised VGG-19 as their file has it: a 1x1 convolution, then 3x3 ones behind reflection padding."""

    def __init__(self, state, level):
        super().__init__()
        self.state, self.level = state, level

    def forward(self, x):
        state = self.state
        x = F.conv2d(x, state["0.weight"], state["0.bias"])
        for entry, label in encoder_entries().items():
            x = F.pad(x, (1, 1, 1, 1), mode="reflect")
            x = F.relu(F.conv2d(x, state[f"{entry}.weight"], state[f"{entry}.bias"]))
            if label == f"{self.level}_1":
                return x
            if label in ("1_2", "2_2"):
                x = F.max_pool2d(x, 2)
        raise AssertionError


@pytest.fixture(scope="module")
def pictures():
    return {
        name: images.read(f"builtin:{name}").pixels[..., :height, :width] for name, (height, width) in SIZES.items()
    }


def decoder(path, level):
    network = VGGDecoder(level)
    prefix = f"level{level}."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in read_state(path).items() if k.startswith(prefix)})
    return network.eval()


@torch.no_grad()
@pytest.mark.parametrize("level", [1, 2, 3])
def test_authors_weights_reconstruct_as_published(shared, pictures, tmp_path, level):
    folder = shared / "weights/wct_official"
    out = tmp_path / "wct.safetensors"
    result = import_weights("wct", [folder / f"feature_invertor_conv{level}_1.pth"], out)
    assert result.fits
    ours = decoder(out, level)
    theirs = AuthorsEncoder(read_source(folder / f"vgg_normalised_conv{level}_1.pth").state, level)
    for name, picture in pictures.items():
        assert psnr(ours(theirs(picture)), picture) == pytest.approx(PUBLISHED[level][name], abs=0.3)


@torch.no_grad()
def test_rescaled_decoder_fits_our_encoder(shared, pictures, tmp_path):
    folder = shared / "weights/wct_official"
    file, encoder = folder / "feature_invertor_conv3_1.pth", folder / "vgg_normalised_conv3_1.pth"
    import_weights("wct", [file], tmp_path / "plain.safetensors")
    import_weights("wct", [file], tmp_path / "fitted.safetensors", encoder=encoder)
    ratios = channel_ratios(read_source(encoder), 3)
    # The scales are means over photographs: other photographs, slightly other means.
    assert 0.5 < ratios.min() < ratios.max() < 2
    assert 0.9 < ratios.median() < 1.1
    assert ratios.std() > 0.001
    tap, picture = "relu3_1", pictures["chelsea"]
    features = load_encoder("vgg19.normalised", taps=(tap,), padding="reflect")(picture)[tap]
    own = AuthorsEncoder(read_source(encoder).state, 3)(picture)
    # Ours carries 8-bit kernels: what is left is their error, and without the ratios it is several times that.
    fitted = (features / ratios.float().view(1, -1, 1, 1) - own).norm() / own.norm()
    assert fitted < 0.02
    assert fitted < 0.5 * (features - own).norm() / own.norm()
    values = {n: psnr(decoder(tmp_path / f"{n}.safetensors", 3)(features), picture) for n in ("plain", "fitted")}
    assert values["fitted"] == pytest.approx(PUBLISHED[3]["chelsea"], abs=0.3)
    assert values["fitted"] > values["plain"]
