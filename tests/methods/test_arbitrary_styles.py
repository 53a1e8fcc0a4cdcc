"""The methods that take any style in one pass, as a user of the command line meets them, with the weights that ship."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from command import run
from torch import Tensor

import zoo
from zoo import images, weights
from zoo.cli.common import Reporter, StopRequest
from zoo.cli.jobs import Job
from zoo.cli.session import Session
from zoo.cli.stylize import StylizeOptions
from zoo.color import luminance
from zoo.encoders import load_encoder
from zoo.images import Image
from zoo.methods.adain import STYLE_TAPS, AdaINTraining, AdaINTrainingConfig, mean_std
from zoo.methods.style_swap import StyleSwapTraining, StyleSwapTrainingConfig
from zoo.registry import load_registry
from zoo.stylizer import Context, Mix, Style, StyleCode, Stylized, Stylizer, Traits
from zoo.training.export import read_metadata
from zoo.training.join import join_checkpoints
from zoo.training.reconstruction import ReconstructionConfig, ReconstructionTask, psnr
from zoo.weights import read_state

METHODS = ("adain", "wct", "style-swap")
SMALL = ("--content-size", "96", "--style-size", "96", "--quiet")


def _style_losses(style: Tensor, *images: Tensor) -> list[float]:
    """The style loss of every image."""
    features = load_encoder("vgg19.normalised", taps=STYLE_TAPS, padding="reflect")(torch.cat([style, *images]))
    moments = torch.cat([torch.cat(mean_std(features[tap]), dim=1) for tap in STYLE_TAPS], dim=1)
    return (moments[1:] - moments[0]).square().flatten(1).sum(dim=1).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_shipped_weights_bring_the_style_and_keep_the_photograph(method: str) -> None:
    content, style = (images.read(f"builtin:{n}", size="192").pixels for n in ("astronaut", "swirls"))
    model = zoo.load(method, device="cpu")
    code = model.encode_style(style)
    result = model.stylize(content, code).image
    half = model.stylize(content, code, strength=0.5).image
    plain = model.stylize(content, code, strength=0.0).image
    # A reconstruction shows the photograph, and the half-way strength lies between the two. AdaIN's decoder is not
    # trained to reconstruct (its loss knows no photograph's pixels) and shifts some tones.
    pair = torch.stack([luminance(plain).flatten(), luminance(content).flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > (0.7 if method == "adain" else 0.8)
    losses = _style_losses(style, result, half, plain, content)
    assert losses[0] < 0.5 * losses[3]
    assert losses[0] < losses[1] < losses[2]


@pytest.mark.parametrize("method", METHODS)
def test_two_styles_mixed_and_by_region(method: str, tmp_path: Path) -> None:
    left = torch.zeros(1, 3, 64, 96)
    left[..., :48] = 1
    images.write(tmp_path / "left.png", left)
    images.write(tmp_path / "right.png", 1 - left)
    both = ("--content", "builtin:coffee", "--style", "builtin:swirls", "builtin:mosaic", *SMALL)
    mixed, regions = tmp_path / "mixed.png", tmp_path / "regions.png"
    assert run("stylize", "-m", method, *both, "--style-interpolation-weights", "0.5,0.5", "-o", str(mixed)) == 0
    masks = ("--mask", str(tmp_path / "left.png"), str(tmp_path / "right.png"))
    assert run("stylize", "-m", method, *both, *masks, "-o", str(regions)) == 0
    one, two = (images.read(path).pixels for path in (mixed, regions))
    assert one.shape == two.shape
    assert (one - two).abs().mean() > 0.02


# Of the picture of float16 against that of float32, in dB. WCT whitens the rounding of one level at the next, the more
# the fewer positions there are; that is why it runs pictures this small in float32 unless told otherwise, as here.
HALF = {"adain": 45.0, "wct": 25.0, "style-swap": 35.0}


@pytest.mark.parametrize("method", METHODS)
def test_regions_in_float16_are_near_float32(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.methods.wct.SMALL", 0)
    names = ("astronaut", "swirls", "mosaic")
    content, *styles = (images.read(f"builtin:{name}", size="exact:48x48").pixels for name in names)
    models = {precision: zoo.load(method, device="cpu", precision=precision) for precision in ("fp32", "fp16")}
    mixes = {p: Mix([(model.encode_style(style), 0.5) for style in styles]) for p, model in models.items()}
    for height, width in ((48, 20), (0, 0), (1, 1)):
        masks = torch.zeros(2, 48, 48)
        masks[1, :height, :width] = 1
        masks[0] = 1 - masks[1]
        context = Context(content_masks=masks)
        exact, rough = (model.stylize(content, mixes[p], context=context).image for p, model in models.items())
        assert psnr(rough, exact) > HALF[method]


@pytest.mark.parametrize("keep", ["coral", "luminance"])
def test_the_photographs_colours_are_kept(keep: str, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    arguments = ("--content", "builtin:coffee", "--style", "builtin:swirls", *SMALL, "-o", str(out))
    assert run("stylize", "-m", "adain", *arguments, "--preserve-color", keep) == 0
    photo, kept = images.read("builtin:coffee", size="96").pixels, images.read(out).pixels
    assert run("stylize", "-m", "adain", *arguments) == 0
    free = images.read(out).pixels

    def chroma(image: Tensor) -> Tensor:
        return (image - luminance(image)).mean(dim=(2, 3))

    assert (chroma(kept) - chroma(photo)).norm() < 0.5 * (chroma(free) - chroma(photo)).norm()


def test_an_unknown_way_of_keeping_colours_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stylize", "-m", "adain", "--preserve-color", "all") == 2
    assert "none, luminance or coral" in capsys.readouterr().err


def test_masks_and_weights_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images.write(tmp_path / "all.png", torch.ones(1, 3, 8, 8))
    both = ("--style", "builtin:swirls", "builtin:mosaic", *SMALL, "-o", str(tmp_path / "out.png"))
    masks = ("--mask", str(tmp_path / "all.png"), str(tmp_path / "all.png"))
    assert run("stylize", "-m", "adain", *both, *masks, "--style-interpolation-weights", "0.5,0.5") == 2
    assert "leave --mask or --style-interpolation-weights out" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out.png").exists()


class Encoder:
    """A method that only tells what it is asked to encode, and which of its codes are still held."""

    # Encoding a style takes no memory.
    traits = Traits(iterative=True, source="image", strength="loss")

    def __init__(self) -> None:
        self.codes: list[weakref.ref[StyleCode]] = []

    def encode_style(self, style: Tensor, content_size: tuple[int, int]) -> StyleCode:
        code = StyleCode("encoder", "", Style(style), {"image": style})
        self.codes.append(weakref.ref(code))
        return code

    def stylize(self, content: Tensor, style: StyleCode, **arguments: object) -> Stylized:
        return Stylized(content)

    @property
    def held(self) -> int:
        return sum(code() is not None for code in self.codes)


def _picture(width: int) -> Image:
    return Image(torch.rand(1, 3, 16, width), None, "", "", (16, width))


@pytest.mark.parametrize(
    ("widths", "encoded", "held"),
    [((20, 20, 20, 20, 20), 2, 2), ((20, 24, 20, 24, 20), 4, 4), ((20, 21, 22, 23, 24), 10, 4)],
)
def test_codes_of_contents_gone_by_are_dropped(widths: tuple[int, ...], encoded: int, held: int) -> None:
    """Two styles over five contents of these widths: codes are shared where they can be, and not kept otherwise."""
    encoder = Encoder()
    pictures = {name: _picture(16) for name in ("one", "two")}
    session = Session(cast(Stylizer, encoder), dict(pictures), StylizeOptions(), None)
    most = 0
    for number, width in enumerate(widths):
        photo = _picture(width)
        for style in pictures:
            session.run(photo, Job(f"{number}.png", (style,), "out.png", ""), None, Reporter(None, StopRequest()))
            most = max(most, encoder.held)
    assert (len(encoder.codes), most) == (encoded, held)


def test_of_the_pictures_made_only_the_one_being_written_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    act = Session.run

    def watched(self: Session, *arguments: Any) -> Stylized:
        alive.append(sum(picture() is not None for picture in written))
        result = act(self, *arguments)
        written.append(weakref.ref(result.image))
        return result

    monkeypatch.setattr(Session, "run", watched)
    contents = ("--content", "builtin:coffee", "builtin:chelsea", "builtin:astronaut", "builtin:rocket")
    common = ("--style", "builtin:swirls", "--content-size", "64", "--style-size", "64", "--quiet")
    assert run("stylize", "-m", "adain", *contents, *common, "-o", str(tmp_path / "out")) == 0
    assert alive[0] == 0
    assert len(alive) == 4
    assert max(alive) <= 1


def test_wct_takes_levels_and_makes_textures(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    levels = ("--levels", "3,2", "--level-strengths", "1,0.5")
    assert run("stylize", "-m", "wct", "--content", "builtin:coffee", *SMALL, *levels, "-o", str(out)) == 0
    texture = tmp_path / "texture.png"
    small = ("--style-size", "96", "--size", "64x48", "-o", str(texture), "-q")
    assert run("texture", "-m", "wct", "--style", "builtin:mosaic", *small) == 0
    assert images.read(texture).pixels.shape[-2:] == (48, 64)


@pytest.mark.parametrize("method", METHODS)
def test_every_shipped_checkpoint_is_whole_and_has_its_card(method: str) -> None:
    for tag, checkpoint in load_registry().methods[method].checkpoints.items():
        path = weights.path(f"{method}.{tag}", checkpoint)
        assert path.stat().st_size == checkpoint.bytes
        facts = read_metadata(path)
        assert facts["method"] == method
        assert facts["step"] == checkpoint.provenance.steps
        assert facts["hours"] == pytest.approx(checkpoint.provenance.hours)
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        for needed in ("Teacher", "Time", "images", "fp16"):
            assert needed in card, needed
        assert "/work" not in json.dumps(facts)
        assert "/tmp" not in json.dumps(facts)


def test_shipped_checkpoints_stay_small() -> None:
    total = sum(c.bytes for m in load_registry().methods.values() for c in m.checkpoints.values() if c.file)
    assert total < 95e6


def test_training_goes_on_from_the_weights_that_ship() -> None:
    path = weights.path("wct.zoo", load_registry().methods["wct"].checkpoints["zoo"])
    state = read_state(path)
    for level in (1, 3):
        task = ReconstructionTask(ReconstructionConfig(level=level))
        task.network.load_state_dict(task.adopt(state))
        assert torch.equal(task.network.conv1_1.weight, state[f"level{level}.conv1_1.weight"])
    adain = AdaINTraining(AdaINTrainingConfig(start=str(path)))
    adain.prepare(iter(()))
    assert torch.equal(adain.network.conv4_1.weight, state["level4.conv4_1.weight"])
    swap = StyleSwapTraining(StyleSwapTrainingConfig(decoder=str(path)))
    swap.prepare(iter(()))
    assert torch.equal(swap.network.conv3_1.weight, state["level3.conv3_1.weight"])


def test_one_level_can_be_exchanged_in_the_file_that_ships(tmp_path: Path) -> None:
    shipped = weights.path("wct.zoo", load_registry().methods["wct"].checkpoints["zoo"])
    parts = {f"level{level}": shipped for level in (1, 2)}
    out, card = join_checkpoints(tmp_path / "two.safetensors", parts)
    before, after = read_state(shipped), read_state(out)
    assert set(after) == {key for key in before if key.startswith(("level1.", "level2."))}
    assert all(torch.equal(after[key], before[key]) for key in after)
    facts = read_metadata(out)
    assert facts["parts"]["level2"] == read_metadata(shipped)["parts"]["level2"]
    assert facts["step"] == sum(part["step"] for part in facts["parts"].values())
    assert "level2" in card.read_text(encoding="utf-8")
