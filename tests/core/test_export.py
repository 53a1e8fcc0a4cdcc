"""Export to ONNX: the file equals PyTorch at any size, says what it is, and is run by the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import zoo.export as exporting
from zoo import images, registry
from zoo.cli import main
from zoo.errors import ConfigError, InputError, NumericalError, UnsupportedError, WeightsError
from zoo.export import TOLERANCE, OnnxNetwork, export, with_onnxruntime
from zoo.methods.cin import CIN, CINNet
from zoo.methods.johnson import Johnson, JohnsonNet
from zoo.methods.texture_nets import TextureNets
from zoo.nn.noise_pyramid import Pyramid
from zoo.registry import MethodEntry, Taxonomy
from zoo.stylizer import Mix

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
if tuple(map(int, torch.__version__.split(".")[:2])) < exporting._TORCH:
    pytest.skip("exporting needs a later torch", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def _one_residual_block() -> Iterator[None]:
    """Of five alike: tracing takes time by the layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.nn.transformer.RESIDUAL_BLOCKS", 1)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, _one_residual_block: None) -> Path:
    """Checkpoints of untrained networks, as different from the identity as trained ones."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    save_file(JohnsonNet("batch", 4, "transposed", "linear").state_dict(), folder / "batch.safetensors")
    cin = CINNet(2, 4)
    cin.scale.data.normal_(1, 0.3)
    cin.shift.data.normal_(0, 0.3)
    records = [{"name": name, "phash": f"{index:016x}"} for index, name in enumerate(("first", "second"))]
    save_file(cin.state_dict(), folder / "cin.safetensors", {"rows": json.dumps(records)})
    for name, inputs in (("quiet", 3), ("noisy", 6)):
        save_file(Pyramid(2, inputs, "instance", False).state_dict(), folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def mixed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[CIN, Mix, exporting.Exported]:
    """A mix of two styles in one file."""
    model = CIN(checkpoint=folder / "cin.safetensors", device="cpu", precision="fp32", name="cin.zoo")
    mix = Mix([(model.encode_style("first"), 0.3), (model.encode_style("second"), 0.7)])
    return model, mix, export(model, mix, tmp_path_factory.mktemp("onnx") / "mix.onnx", license="CC0")


# -- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["exact:64x64", "exact:77x50", "exact:33x118"])
def test_a_mix_at_any_size(mixed: tuple[CIN, Mix, exporting.Exported], size: str) -> None:
    model, mix, done = mixed
    content = images.read("builtin:chelsea", size=size).pixels
    result = OnnxNetwork(done.path)(content)
    wanted = model.stylize(content, mix).image
    assert float((result - wanted).abs().max()) < TOLERANCE
    # Neither style alone would do.
    assert float((result - model(content, "first")).abs().max()) > 10 * TOLERANCE


def test_a_batch_is_its_images(mixed: tuple[CIN, Mix, exporting.Exported]) -> None:
    batch = torch.cat([images.read(f"builtin:{n}", size="exact:40x48").pixels for n in ("chelsea", "coffee")])
    network = OnnxNetwork(mixed[2].path, threads=1)
    singles = torch.cat([network(image) for image in batch.split(1)])
    torch.testing.assert_close(network(batch), singles, atol=1e-5, rtol=0)


def test_the_file_says_what_it_is(mixed: tuple[CIN, Mix, exporting.Exported], folder: Path) -> None:
    import hashlib

    model = onnx.load(mixed[2].path)
    facts = OnnxNetwork(mixed[2].path).metadata
    assert facts == dict(mixed[2].metadata)
    assert (facts["method"], facts["style"], facts["license"]) == ("cin.zoo", "first x 0.3, second x 0.7", "CC0")
    assert facts["checkpoint_sha256"] == hashlib.sha256((folder / "cin.safetensors").read_bytes()).hexdigest()
    assert [(o.domain, o.version) for o in model.opset_import] == [("", int(facts["opset"]))]
    for value in (*model.graph.input, *model.graph.output):
        shape = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        assert shape == ["batch", 3, "height", "width"]
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    # The exporter's own notes name source files of this machine.
    assert str(Path(exporting.__file__).parent).encode() not in mixed[2].path.read_bytes()
    assert b"site-packages" not in mixed[2].path.read_bytes()


def test_a_checkpoint_replaced_since_is_not_said_to_be_what_was_exported(
    mixed: tuple[CIN, Mix, exporting.Exported], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_trace", lambda *a: onnx.load(mixed[2].path))
    path, loaded = tmp_path / "cin.safetensors", (folder / "cin.safetensors").read_bytes()
    path.write_bytes(loaded)
    exact, other = (CIN(checkpoint=path, device="cpu", precision=p, name="cin.zoo") for p in ("fp32", "bf16"))
    kept = exporting._place(exact, mixed[1])
    save_file(CINNet(2, 4).state_dict(), path, {"rows": json.dumps([{"name": n, "phash": n} for n in "ab"])})

    def mix(model: CIN) -> Mix:
        return Mix([(model.encode_style("first"), 0.3), (model.encode_style("second"), 0.7)])

    done = export(exact, mix(exact), tmp_path / "out.onnx")
    assert done.metadata["checkpoint_sha256"] == mixed[2].metadata["checkpoint_sha256"]
    assert exporting._place(exact, mix(exact)) == kept
    # Exported is float32, for which the weights are read again, and they are others now.
    with pytest.raises(InputError, match="with other options or weights"):
        export(other, mix(other), tmp_path / "none.onnx")
    assert not (tmp_path / "none.onnx").exists()


@pytest.mark.parametrize(("name", "kind"), [("batch", Johnson), ("quiet", TextureNets)])
def test_other_networks(name: str, kind: type, folder: Path, tmp_path: Path) -> None:
    model = kind(checkpoint=folder / f"{name}.safetensors", device="cpu", name="net.zoo")
    done = export(model, model.encode_style(name), tmp_path / "net.onnx")
    assert done.difference < TOLERANCE
    assert done.bytes == done.path.stat().st_size
    # 71 and 93 are no multiples of the pyramid's cell: its padding is part of the file.
    content = images.read("builtin:chelsea", size="exact:93x71").pixels
    exact = kind(checkpoint=model.checkpoint, device="cpu", precision="fp32", name="net.zoo")
    difference = (OnnxNetwork(done.path)(content) - exact(content, name)).abs()
    assert float(difference.max()) < TOLERANCE


def test_what_cannot_be_exported(folder: Path, tmp_path: Path) -> None:
    import zoo

    noisy = TextureNets(checkpoint=folder / "noisy.safetensors", device="cpu", name="texture-nets.v1")
    with pytest.raises(UnsupportedError, match="draws noise"):
        export(noisy, noisy.encode_style("noisy"), tmp_path / "out.onnx")
    style = images.read("builtin:swirls", size="long:64").pixels
    for name, reason in (("gatys", "by optimisation"), ("adain", "takes any style image")):
        model = zoo.load(name, device="cpu")
        with pytest.raises(UnsupportedError, match=reason):
            export(model, model.encode_style(style, (64, 64)), tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_differs_is_not_kept(
    mixed: tuple[CIN, Mix, exporting.Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, mix, _ = mixed
    monkeypatch.setattr(exporting, "_trace", lambda *a: onnx.load(mixed[2].path))
    other = Mix([(model.encode_style("first"), 1.0)])
    with pytest.raises(NumericalError, match="differs from PyTorch"):
        export(model, other, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())
    export(model, mix, tmp_path / "out.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]
    with pytest.raises(ConfigError, match="does not exist"):
        export(model, mix, tmp_path / "none" / "out.onnx")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for act in (exporting.require, lambda: OnnxNetwork(tmp_path / "a.onnx")):
        with pytest.raises(ConfigError, match=r"pip install 'style-transfer-zoo\[onnx\]'"):
            act()


def test_a_file_that_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be read by onnxruntime"):
        OnnxNetwork(path)


# -- a stylizer through onnxruntime -----------------------------------------------------------------------------------


def test_a_stylizer_through_onnxruntime(
    mixed: tuple[CIN, Mix, exporting.Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, mix, _ = mixed
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    made = []
    monkeypatch.setattr(exporting, "_trace", lambda *a: made.append(a) or onnx.load(mixed[2].path))
    content = images.read("builtin:coffee", size="exact:52x45").pixels
    wanted = model.stylize(content, mix, strength=0.4).image
    for _ in range(2):
        through = with_onnxruntime(model)
        assert through.style_names == model.style_names
        # Codes of either serve the other, and strength blends as ever.
        found = through.stylize(content, mix, strength=0.4).image
        assert float((found - wanted).abs().max()) < TOLERANCE
    assert len(made) == 1
    (kept,) = (tmp_path / "onnx").iterdir()
    assert kept.suffix == ".onnx"
    own = [(through.encode_style("first"), 0.3), (through.encode_style("second"), 0.7)]
    torch.testing.assert_close(through.stylize(content, Mix(own), strength=0.4).image, found, atol=0, rtol=0)
    # Another mix is another file; this one is not what the (patched) exporter gives, and so is not kept.
    with pytest.raises(NumericalError):
        through.stylize(content, through.encode_style("second"))
    assert len(list((tmp_path / "onnx").iterdir())) == 1


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry in which cin takes its weights from the command line, whatever else is registered."""
    whole = registry.load_registry()
    like = whole.methods["gatys"]
    entry = MethodEntry.model_validate(
        {
            **like.model_dump(by_alias=True, exclude={"encoder"}),
            "class": "zoo.methods.cin:CIN",
            "taxonomy": Taxonomy(optimizes="model", styles="many", statistics="parametric"),
            "default": "own",
            "presets": {"own": {"summary": "weights of one's own"}},
        }
    )
    changed = replace(whole, methods={**whole.methods, "cin": entry})
    monkeypatch.setattr(registry, "load_registry", lambda: changed)
    monkeypatch.setattr("zoo.loading.load_registry", lambda: changed)


def run(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_export_and_backend_from_the_command_line(
    registered: None,
    mixed: tuple[CIN, Mix, exporting.Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Tracing takes longer than all else, and its result is compared with PyTorch all the same.
    monkeypatch.setattr(exporting, "_trace", lambda *a: onnx.load(mixed[2].path))
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    weights = ("--checkpoint", mixed[0].checkpoint)
    styles = ("--style", "first", "second", "--style-interpolation-weights", "0.3,0.7")
    out = tmp_path / "mix.onnx"
    assert run("export", "cin", *weights, *styles, "--out", out, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["method"], said["style"], said["file"]) == ("cin.own", "first x 0.3, second x 0.7", str(out))
    assert said["license"] == "not stated (weights of your own)"
    assert said["difference"] < TOLERANCE
    pictures = {}
    for backend in ("torch", "onnxruntime"):
        target = tmp_path / f"{backend}.png"
        common = ("--content", "builtin:coffee", "--content-size", 80, *styles, "-o", target, "-q")
        assert run("stylize", "-m", "cin", *weights, *common, "--backend", backend, "--precision", "fp32") == 0
        pictures[backend] = images.read(target).pixels.numpy()
    assert np.abs(pictures["torch"] - pictures["onnxruntime"]).max() <= 1 / 255 + 1e-6
    assert len(list((tmp_path / "home" / "onnx").iterdir())) == 1


def test_a_film_by_onnxruntime_is_that_of_torch(
    registered: None,
    mixed: tuple[CIN, Mix, exporting.Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("av", reason="the extra video is not installed")
    pytest.importorskip("cv2", reason="the extra video is not installed")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    model = CIN(checkpoint=mixed[0].checkpoint, device="cpu", precision="fp32", name="cin.own")
    style = Mix([(model.encode_style("first"), 1.0)])
    place = exporting._place(model, style)
    place.parent.mkdir(parents=True)
    export(model, style, place)
    monkeypatch.setattr(exporting, "_trace", lambda *_: pytest.fail("it was exported once"))
    picture = images.read("builtin:coffee", size="exact:80x56").pixels
    (tmp_path / "frames").mkdir()
    for number in range(4):
        images.write(tmp_path / "frames" / f"{number}.png", picture[..., number : number + 72])
    common = ("-m", "cin", "--checkpoint", model.checkpoint, "--style", "first", "--content", tmp_path / "frames")
    for keep in ("none", "warp"):
        found = []
        for backend in ("torch", "onnxruntime"):
            target = tmp_path / f"{keep}-{backend}"
            arguments = ("--keep", keep, "--backend", backend, "--size", 0, "--precision", "fp32", "-o", target, "-q")
            assert run("video", *common, *arguments) == 0
            found.append(np.stack([images.read(path).pixels.numpy() for path in sorted(target.iterdir())]))
        assert len(found[0]) == 4
        assert np.abs(found[0] - found[1]).max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "gatys", "--style-size", "64", "-o", "out.onnx"), "has no network of its own"),
        (("export", "cin", "--style", "first", "-o", "."), "'.' is a folder: name the file"),
        (("export", "cin", "--style", "first", "-o", "no/a.onnx"), "does not exist: create it first"),
        (("export", "cin", "--style", "third"), "neither a file nor a trained style: first, second"),
        (("export", "cin", "--style", "first", "--style-interpolation-weights", "0.4,0.6"), "one weight per style"),
        (("stylize", "-m", "cin", "--style", "first", "--backend", "tpu"), "torch or onnxruntime"),
        (("stylize", "-m", "cin", "--style", "first", "--backend", "onnxruntime", "--precision", "bf16"), "float32"),
        (
            ("stylize", "-m", "gatys", "--backend", "onnxruntime", "--content-size", "64", "--style-size", "64"),
            "has no network of its own",
        ),
        (("video", "-m", "cin", "--style", "first", "--backend", "tpu"), "torch or onnxruntime"),
        (("video", "-m", "cin", "--style", "first", "--backend", "onnxruntime", "--device", "cuda"), "on the CPU"),
        (
            ("video", "-m", "gatys", "--backend", "onnxruntime", "--size", "128", "--style-size", "64"),
            "has no network of its own",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(
    arguments: tuple[str, ...],
    said: str,
    registered: None,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(exporting, "_trace", lambda *_: pytest.fail("the work began"))
    own = () if "gatys" in arguments else ("--checkpoint", str(folder / "cin.safetensors"))
    assert run(*arguments, *own) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not list(tmp_path.glob("*.onnx"))


def test_an_old_torch_is_named_with_the_one_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(ConfigError, match=r"torch 2\.14 or later, and this is 2\.9\.1\+cpu"):
        exporting.require()
