"""Pictures and films from exported networks without torch: found where they were exported, equal to those that torch
reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from zoo import export, exported, images
from zoo.registry import load_registry
from zoo.stylizer import Mix

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

STYLE = "mosaic"
SCRIPT = """
import sys
from zoo.cli import main
try:
    main(sys.argv[1:])
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.fixture
def negative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network that takes the negative, where Johnson's of one style would lie once it was exported."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    resolved = load_registry().resolve("johnson")
    assert resolved.checkpoint is not None
    path = exported.place(resolved.label, STYLE, resolved.checkpoint.sha256, "zoo.methods.johnson")
    image, stylized = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])
        for name in ("image", "stylized")
    )
    one = onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, [], [1.0])
    node = onnx.helper.make_node("Sub", ["one", "image"], ["stylized"])
    graph = onnx.helper.make_graph([node], "negative", [image], [stylized], [one])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", exported.OPSET)], ir_version=10)
    onnx.helper.set_model_props(model, {"min_size": "16"})
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    return path


def quick(*arguments: str, verb: str = "stylize") -> tuple[int, str, list[str]]:
    """Exit code, output and messages of the command in a process of its own; the last says whether torch is there."""
    command = [sys.executable, "-c", SCRIPT, verb, "-m", "johnson", "--style", STYLE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr.splitlines()


def test_a_picture_needs_no_torch_and_is_that_of_the_network(negative, tmp_path):
    target = tmp_path / "out.png"
    code, said, errors = quick("--content", "builtin:coffee", "--content-size", "96", "-o", str(target), "--json")
    assert (code, errors) == (0, ["False"])
    (summary,) = json.loads(said)
    assert (summary["backend"], summary["width"], summary["height"]) == ("onnxruntime", 96, 64)
    wanted = 1 - images.read("builtin:coffee", size=96).pixels
    assert float((images.read(target).pixels - wanted).abs().max()) <= 0.51 / 255 + 1e-6


def test_of_several_what_cannot_be_read_or_is_too_small_is_named_and_the_rest_made(negative, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    images.write(folder / "narrow.png", torch.rand(1, 3, 4, 300))
    images.write(folder / "right.png", torch.rand(1, 3, 40, 30), alpha=torch.ones(1, 1, 40, 30) / 2)
    code, _, errors = quick("--content", str(folder), "--content-size", "48", "-o", f"{out}/")
    assert code == 1
    assert errors[-1] == "False"
    assert "broken.png" in " ".join(errors)
    assert "needs at least 16 a side" in " ".join(errors)
    (made,) = out.iterdir()
    assert images.read(made).alpha is not None


def test_whatever_is_no_plain_picture_of_one_style_goes_through_torch(negative):
    from zoo.cli.quick import exported_networks
    from zoo.cli.stylize import StylizeOptions

    assert exported_networks(StylizeOptions(method="johnson"), [], [STYLE]) == {STYLE: negative}
    for given in (
        {"backend": "torch"}, {"strength": 0.5}, {"preserve_color": "luminance"}, {"precision": "bf16"},
        {"device": "cuda"}, {"weights": "1"}, {"mask": ["m.png"]}, {"sheet": "s.png"}, {"content_size": "0"},
        {"content_size": "short:512"}, {"content_size": "4096"}, {"checkpoint": "own.safetensors"},
    ):  # fmt: skip
        assert exported_networks(StylizeOptions(**{"method": "johnson", **given}), [], [STYLE]) is None
    assert exported_networks(StylizeOptions(method="johnson"), ["--x"], [STYLE]) is None
    assert exported_networks(StylizeOptions(method="johnson"), [], [STYLE, "swirls"]) is None
    assert exported_networks(StylizeOptions(method="adain"), [], ["a.png"]) is None


def test_a_trained_style_is_exported_to_where_it_is_looked_for(tmp_path, monkeypatch):
    import zoo

    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    model = zoo.load("johnson", device="cpu", precision="fp32")
    checkpoint = load_registry().resolve("johnson").checkpoint
    assert checkpoint is not None
    (place,) = {export._place(model, Mix([(model.encode_style(STYLE), 1.0)]))}
    assert place == exported.place(model.name, STYLE, checkpoint.sha256, "zoo.methods.johnson")
    other = export._place(model, Mix([(model.encode_style("swirls"), 1.0)]))
    assert other != place
    assert export._place(model, Mix([(model.encode_style(STYLE), 0.5), (model.encode_style("swirls"), 0.5)])) != place


def test_without_onnxruntime_what_another_installation_exported_is_left_to_torch(negative, monkeypatch):
    from zoo.cli.quick import exported_networks
    from zoo.cli.stylize import StylizeOptions

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert exported_networks(StylizeOptions(method="johnson"), [], [STYLE]) is None


def test_a_plugins_changed_code_is_another_network(tmp_path, monkeypatch):
    import zoo

    package = tmp_path / "ownstyle"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "layers.py").write_text("WIDTH = 1")
    (package / "method.py").write_text("from zoo.methods.johnson import Johnson\nclass Own(Johnson): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    like = zoo.load("johnson", device="cpu", precision="fp32")
    from ownstyle.method import Own  # pyright: ignore[reportMissingImports]

    model = Own(device="cpu", precision="fp32", checkpoint=like.checkpoint, name="own.zoo")
    mixes = [Mix([(model.encode_style(STYLE), 1.0)])]
    mixes.append(Mix([(model.encode_style(STYLE), 0.5), (model.encode_style("swirls"), 0.5)]))
    before = [export._place(model, mix) for mix in mixes]
    assert before == [export._place(model, mix) for mix in mixes]
    (package / "layers.py").write_text("WIDTH = 2")
    assert not set(before) & {export._place(model, mix) for mix in mixes}
    assert exported.basis("a module of a notebook")


@pytest.mark.parametrize("size", ["37", "short:90", "exact:50x31", "400", "0"])
def test_arrays_are_resized_as_tensors_are(size):
    for source in ("builtin:coffee", "builtin:astronaut"):
        pixels, alpha = images.read_array(source, size=size, max_pixels=images.MAX_PIXELS)
        assert alpha is None
        np.testing.assert_allclose(pixels, images.read(source, size=size).pixels[0].numpy(), atol=5e-5)


# -- films ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A film of 20 frames in which each is one gray, with a tone."""
    av = pytest.importorskip("av", reason="the extra video is not installed")
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("libx264", rate=25, options={"crf": "1"}), out.add_stream("aac", rate=48000)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        for number in range(20):
            array = np.full((48, 64, 3), 10 * number, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        out.mux(video.encode())
        for k in range(37):
            tone = np.sin(np.arange(k * 1024, (k + 1) * 1024) / 20)[None].astype(np.float32)
            piece = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            piece.sample_rate, piece.pts = 48000, k * 1024
            out.mux(sound.encode(piece))
        out.mux(sound.encode())
    return path


PLAIN = ("--keep", "none", "--backend", "onnxruntime", "-q")


@pytest.mark.parametrize("size", ["0", "96"])
def test_a_film_frame_by_frame_needs_no_torch_and_keeps_sound_and_times(negative, film, tmp_path, size):
    import av

    from zoo.video.clips import Clip, ClipOptions

    target = tmp_path / "out.mp4"
    code, _, errors = quick("--content", str(film), "--size", size, *PLAIN, "-o", str(target), verb="video")
    assert (code, errors) == (0, ["False"])
    before = list(Clip(film, ClipOptions(size=size)).frames())
    after = list(Clip(target).frames())
    assert [frame.time for frame in after] == [frame.time for frame in before]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other.array, 1 - one.array, atol=4 / 255)
    with av.open(str(target)) as made, av.open(str(film)) as given:
        sounds = [sum(frame.samples for frame in one.decode(audio=0)) for one in (made, given)]
    assert sounds[0] == pytest.approx(sounds[1], abs=2048)


def test_a_film_that_was_broken_off_goes_on_by_another_backend(negative, film, tmp_path):
    from fractions import Fraction

    from zoo.cli.video import VideoOptions
    from zoo.video.clips import Clip
    from zoo.video.film import Film

    target = tmp_path / "out"
    options = VideoOptions(method="johnson", content=str(film), keep="none")
    begun = Film(target, (48, 64), Fraction(25), made_by=options.made_by(STYLE, {}))
    begun.add(torch.zeros(1, 3, 48, 64))
    begun.close(finished=False)
    arguments = ("--content", str(film), "--size", "0", *PLAIN, "-o", str(target))
    code, _, errors = quick(*arguments, verb="video")
    assert code == 2
    assert "--resume" in errors[0]
    assert quick(*arguments, "--resume", verb="video")[::2] == (0, ["False"])
    made = [images.read(path).pixels for path in sorted(target.iterdir())]
    assert not made[0].any()  # as it was begun
    for one, other in zip(list(Clip(film).frames())[1:], made[1:], strict=True):
        assert float((1 - one.pixels - other).abs().max()) <= 0.51 / 255 + 1e-6


def test_which_films_go_through_torch(negative, monkeypatch):
    from zoo.cli.quick import exported_frames
    from zoo.cli.video import VideoOptions

    def through_torch(way: str = "none", own: tuple[str, ...] = (), side: int = 64, **given: Any) -> bool:
        options = VideoOptions(**{"method": "johnson", "backend": "onnxruntime", **given})
        return exported_frames(options, "johnson", way, own, STYLE, (side, 48)) is None

    assert not through_torch()
    assert through_torch(way="warp")
    assert through_torch(own=("--x",))
    assert through_torch(side=4096)
    others: list[dict[str, Any]] = [
        {"backend": "torch"}, {"strength": 0.5}, {"passes": 2}, {"motion": "flows"}, {"checkpoint": "own"},
    ]  # fmt: skip
    assert all(through_torch(**given) for given in others)
    # Found by auto too, but where torch would be quicker once it has started.
    for quicker in (False, True):
        monkeypatch.setattr(exported, "torch_is_quicker", lambda *_, answer=quicker: answer)
        assert through_torch(backend="auto") == quicker
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert through_torch()


@pytest.mark.parametrize(
    ("found", "device", "precision", "quicker"),
    [
        ("gpu", "auto", "auto", True), ("gpu", "cpu", "auto", False), ("half", "auto", "auto", True),
        ("half", "auto", "fp32", False), ("", "auto", "auto", False),
    ],
)  # fmt: skip
def test_where_torch_is_quicker(found, device, precision, quicker, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("flags: fpu avx512_bf16" if found == "half" else "flags: fpu", encoding="utf-8")
    monkeypatch.setattr(exported, "_CPU", tmp_path / "cpuinfo")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("zoo.exported.shutil.which", lambda name: "/bin/" + name if found == "gpu" else None)
    assert exported.torch_is_quicker(device, precision) is quicker


def test_a_frame_that_is_too_small_is_one_sentence(negative, film, tmp_path):
    code, _, errors = quick("--content", str(film), "--size", "12", *PLAIN, "-o", str(tmp_path / "a.mp4"), verb="video")
    assert (code, errors[1:]) == (2, ["False"])
    assert "12 x 9 pixels; this method needs at least 16 a side" in errors[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "home"]
