"""The command line as a user meets it: results, messages, exit codes, and nothing half written."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
from command import run
from PIL import Image

from zoo.cli import _repeat_lists

FAST = [
    "-m",
    "gatys",
    "--num-steps",
    "2",
    "--content-size",
    "64",
    "--style-size",
    "64",
    "--precision",
    "fp32",
    "--quiet",
]


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    paths = {}
    for name, size in {"photo": (80, 64), "second": (64, 96), "paint": (64, 64), "dots": (72, 64)}.items():
        ramp = np.linspace(0, 160, size[0])[None, :, None]
        pixels = (ramp + rng.integers(0, 90, (size[1], size[0], 3))).astype(np.uint8)
        path = tmp_path / f"{name}.png"
        Image.fromarray(pixels).save(path)
        paths[name] = str(path)
    return paths


def stylize(pictures: dict[str, str], out: Path, *extra: str) -> int:
    return run("stylize", "--content", pictures["photo"], "--style", pictures["paint"], "-o", str(out), *FAST, *extra)


@pytest.mark.parametrize("name", ["photo", "paint"])
def test_a_picture_that_is_read_is_not_written_over(pictures, name, capsys):
    before = Path(pictures[name]).read_bytes()
    assert stylize(pictures, Path(pictures[name])) == 2
    assert "is what the result is made of: give -o another name." in capsys.readouterr().err
    assert run("texture", "--style", pictures[name], "-o", pictures[name], *FAST[2:4]) == 2
    assert run("reconstruct", "content", "--image", pictures[name], "-o", pictures[name]) == 2
    assert capsys.readouterr().err.count("is what the result is made of") == 2
    assert Path(pictures[name]).read_bytes() == before


def test_weights_that_do_not_sum_to_one_are_refused_before_the_work(pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("zoo.loading.load", lambda *_, **__: pytest.fail("loaded"))
    mixed = ["--style", pictures["dots"], "--style-interpolation-weights", "0.2,0.2"]
    assert stylize(pictures, tmp_path / "out.png", *mixed) == 2
    assert "Style weights must sum to 1, and 0.2,0.2 sum to 0.4." in capsys.readouterr().err


def test_one_pair_has_the_size_asked_for_and_differs_from_the_photo(pictures, tmp_path):
    out = tmp_path / "out.png"
    assert stylize(pictures, out, "--num-steps", "8") == 0
    with Image.open(out) as result:
        assert result.size == (64, 51)
    before = np.asarray(Image.open(pictures["photo"]).resize((64, 51)), dtype=float)
    assert np.abs(np.asarray(Image.open(out), dtype=float) - before).mean() > 1


def test_every_content_meets_every_style(pictures, tmp_path, capsys):
    out = tmp_path / "several"
    code = run(
        "stylize", "--content", pictures["photo"], pictures["second"], "--style", pictures["paint"], pictures["dots"],
        "-o", str(out), "--json", *FAST,
    )  # fmt: skip
    assert code == 0
    summary = json.loads(capsys.readouterr().out)
    assert [Path(s["output"]).name for s in summary] == [
        "photo__paint__gatys.png", "photo__dots__gatys.png", "second__paint__gatys.png", "second__dots__gatys.png",
    ]  # fmt: skip
    assert all(Path(s["output"]).is_file() and s["steps"] == 2 and s["losses"]["step"] == 2 for s in summary)
    assert all(s["options"]["num_steps"] == 2 for s in summary)


def test_blended_styles_give_one_picture_per_content(pictures, tmp_path):
    out = tmp_path / "blend.png"
    styles = ["--style", pictures["paint"], pictures["dots"]]
    arguments = ["stylize", "--content", pictures["photo"], *styles, "-o", str(out), *FAST]
    assert run(*arguments, "--style-interpolation-weights", "0.5,0.5") == 0
    assert out.is_file()
    assert run(*arguments, "--style-interpolation-weights", "0.5") == 2
    assert run(*arguments, "--style-interpolation-weights", "0.5,0.9") == 2


def test_sheet_frames_and_losses(pictures, tmp_path):
    out = tmp_path / "out.png"
    extra = ["--sheet", str(tmp_path / "sheet.jpg"), "--losses", str(tmp_path / "losses.csv"), "--save-every", "1"]
    assert stylize(pictures, out, *extra) == 0
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.width > 3 * sheet.height / 2
    rows = list(csv.DictReader(io.StringIO((tmp_path / "losses.csv").read_text())))
    assert [row["step"] for row in rows] == ["1", "2"]
    assert float(rows[1]["total"]) < float(rows[0]["total"])
    assert sorted(p.name for p in (tmp_path / "out_frames").iterdir()) == ["00001.png", "00002.png"]


def test_alpha_comes_back(pictures, tmp_path):
    photo = Image.open(pictures["photo"]).convert("RGBA")
    mask = Image.new("L", photo.size, 255)
    mask.paste(0, (0, 0, 40, 64))
    photo.putalpha(mask)
    photo.save(tmp_path / "cut.png")
    out = tmp_path / "out.png"
    assert (
        run("stylize", "--content", str(tmp_path / "cut.png"), "--style", pictures["paint"], "-o", str(out), *FAST) == 0
    )
    with Image.open(out) as result:
        assert result.mode == "RGBA"
        assert result.getpixel((2, 25))[3] == 0
        assert result.getpixel((60, 25))[3] == 255


def test_pipe_in_and_out(pictures):
    data = Path(pictures["photo"]).read_bytes()
    words = ["stylize", "--content", "-", "--style", pictures["paint"], "-o", "-", *FAST]
    done = forked.run([sys.executable, "-m", "zoo", *words], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert Image.open(io.BytesIO(done.stdout)).size == (64, 51)


def test_same_seed_same_file(pictures, tmp_path):
    outs = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]
    for out, seed in zip(outs, ("3", "3", "4"), strict=True):
        assert stylize(pictures, out, "--seed", seed, "--init", "noise") == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert outs[0].read_bytes() != outs[2].read_bytes()


BAD = {
    "missing file": (["--content", "nowhere.png"], "nowhere.png"),
    "unknown method": (["--method", "gatsy"], "did you mean gatys?"),
    "unknown preset": (["--method", "gatys.papr"], "did you mean gatys.paper"),
    "unknown option": (["-m", "gatys", "--num-stesp", "3"], "did you mean --num-steps"),
    "out of range": (["-m", "gatys", "--num-steps", "0"], ">= 1"),
    "not a number": (["-m", "gatys", "--num-steps", "many"], "whole number"),
    "no value": (["-m", "gatys", "--num-steps"], "needs a value"),
    "stray word": (["stray"], "stray"),
    "strength": (["--strength", "1.5"], "from 0 to 1"),
    "device": (["--device", "cuda:7"], "not available"),
    "precision": (["--precision", "fp8"], "fp16"),
    "size": (["--content-size", "huge"], "huge"),
    "unknown builtin": (["--content", "builtin:astronot"], "astronaut"),
    "bad weights": (["--style-interpolation-weights", "a,b"], "0.3,0.7"),
    "output extension": (["-o", "out.xyz"], "out.xyz"),
    "output folder": (["-o", "/dev/null/out.png"], "/dev/null"),
    "two pipes": (["--content", "-", "--style", "-"], "not both"),
}


@pytest.mark.parametrize("case", list(BAD))
def test_a_mistake_is_one_sentence_and_exit_2(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    extra, expected = BAD[case]
    assert run("stylize", *extra) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.rglob("*.png"))


def test_no_traceback_from_a_real_process(tmp_path):
    command = [sys.executable, "-m", "zoo", "stylize", "--content", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_too_small_an_image_is_refused(tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "tiny.png")
    out = tmp_path / "out.png"
    arguments = ["--content-size", "0", "-o", str(out), "--quiet"]
    assert run("stylize", "--content", str(tmp_path / "tiny.png"), *arguments) == 2
    assert "8 x 8" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_keeps_the_best_image(pictures, tmp_path):
    out = tmp_path / "out.png"
    frames = tmp_path / "out_frames"
    command = [sys.executable, "-m", "zoo", "stylize", "--content", pictures["photo"], "--style", pictures["paint"]]
    command += ["-m", "gatys", "-o", str(out), "--content-size", "64", "--style-size", "64", "--quiet"]
    process = forked.Popen([*command, "--num-steps", "100000", "--save-every", "1"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 90
    while not frames.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    with Image.open(out) as result:
        assert result.size == (64, 51)


def test_texture(pictures, tmp_path):
    out = tmp_path / "texture.png"
    fast = ["--num-steps", "2", "--style-size", "64", "--precision", "fp32", "--quiet"]
    assert run("texture", "--style", pictures["paint"], "--size", "72x64", "-o", str(out), *fast) == 0
    with Image.open(out) as result:
        assert result.size == (72, 64)
    assert run("texture", "--size", "12xx", "-o", str(out)) == 2


def test_reconstructions(pictures, tmp_path):
    fast = ["--num-steps", "3", "--size", "64", "--precision", "fp32", "--quiet"]
    content, style = tmp_path / "content.png", tmp_path / "style.png"
    image = ["--image", pictures["photo"]]
    assert run("reconstruct", "content", *image, "--layer", "relu2_2", "-o", str(content), *fast) == 0
    assert run("reconstruct", "style", *image, "--layers", "relu1_1,relu2_1", "-o", str(style), *fast) == 0
    for path in (content, style):
        with Image.open(path) as result:
            assert result.size == (64, 51)
    assert run("reconstruct", "content", *image, "--layer", "relu9_9", "-o", str(tmp_path / "no.png"), *fast) == 2
    assert run("reconstruct", "content", *image, "-m", "cnnmrf", "-o", str(tmp_path / "no.png"), "--quiet") == 2
    assert not (tmp_path / "no.png").exists()


def test_listing_and_info(capsys):
    assert run("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"gatys.paper", "cnnmrf.paper"} <= {row["name"] for row in rows}
    assert sum(row["default"] for row in rows if row["method"] == "gatys") == 1
    assert run("info", "gatys.neural-style", "--json") == 0
    details = json.loads(capsys.readouterr().out)
    flags = {option["flag"]: option for option in details["options"]}
    assert flags["--num-steps"]["default"] == 1000
    assert all(option["help"] for option in details["options"])
    assert run("list", "gatys.*") == 0
    assert run("info", "vgg19") == 0
    assert run("info", "ssim") == 0
    assert run("info", "gatyss") == 2


@pytest.mark.parametrize("verb", [["list"], ["list", "--json"], ["info", "gatys"], ["--version"], ["--help"]])
def test_listings_do_not_import_torch(verb):
    code = (
        "import sys\nfrom zoo.cli import main\n"
        f"try: main({verb!r})\nexcept SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules and 'PIL' not in sys.modules, 'slow import'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_doctor_names_what_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert run("doctor", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["encoders"]["vgg19"] == "ready"
    assert "zoo weights fetch vgg19.torchvision" in report["encoders"]["vgg19.torchvision"]
    assert report["methods"]["gatys.paper"] == "ready"
    assert "vgg19.torchvision" in report["methods"]["gatys.tutorial"]
    assert report["versions"]["torch"] == importlib.metadata.version("torch")
    assert run("doctor") == 0


def test_weights_are_whole(capsys):
    assert run("weights", "verify") == 0
    assert "vgg19: whole" in capsys.readouterr().out
    assert run("weights", "list", "--json") == 0
    assert {"vgg19", "vgg19.normalised"} <= {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert run("weights", "fetch", "vgg20") == 2


def test_repeated_values_follow_their_flag():
    assert _repeat_lists(["stylize", "--content", "a", "b", "--style", "-", "-o", "c"]) == [
        "stylize", "--content", "a", "--content", "b", "--style", "-", "-o", "c",
    ]  # fmt: skip
