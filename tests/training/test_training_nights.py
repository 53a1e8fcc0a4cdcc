"""What could cost a night: a run that ends without its work, goes on as another, or is judged by the wrong images."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_train_command import _no_plot, both, photos, plugin, run  # noqa: F401  # fixtures
from training_runs import Tiny, losses, write_pictures
from training_runs import run as train_tiny

from zoo.errors import ImageError, WeightsError
from zoo.training import ImageSet, read_metadata

PICTURE = {"content": [torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5))]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ImageSet]:
    root = write_pictures(tmp_path_factory.mktemp("images"))
    return {name: ImageSet.open(root / name, store=40, cache_dir=root / "cache") for name in ("content", "style")}


class Greedy(Tiny):
    """Its evaluation takes more memory than there is."""

    def evaluate(self, held_out):
        raise MemoryError


def test_an_evaluation_that_fails_costs_no_update(data: dict[str, ImageSet], tmp_path: Path):
    with pytest.raises(MemoryError):
        train_tiny(data, tmp_path, Greedy(), held_out=PICTURE)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 12
    assert train_tiny(data, tmp_path, resume=True).ended == "steps"
    assert len(losses(tmp_path)) == 13


def test_a_run_whose_time_is_used_up_makes_no_further_update(data: dict[str, ImageSet], tmp_path: Path):
    first = train_tiny(data, tmp_path, steps=100_000, time_limit=0.01, log_every=1)
    again = train_tiny(data, tmp_path, steps=100_000, time_limit=0.01, log_every=1, resume=True)
    assert (again.ended, again.state.step) == ("time", first.state.step)


class Two(Tiny):
    """Has a figure for every set of held-out images that it is given."""

    def evaluate(self, held_out):
        return {f"{name}_error": float(images[0].mean()) for name, images in held_out.items()}


def test_figures_that_come_and_go_keep_their_columns(data: dict[str, ImageSet], tmp_path: Path):
    both_sets = {**PICTURE, "style": PICTURE["content"]}
    for steps, held_out in ((2, PICTURE), (4, both_sets), (6, PICTURE)):
        train_tiny(data, tmp_path, Two(), held_out=held_out, steps=steps, preview_every=0, resume=True)
    with (tmp_path / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    value = f"{float(PICTURE['content'][0].mean()):.9g}"
    assert [tuple(row.values()) for row in rows] == [("2", value, ""), ("4", value, value), ("6", value, "")]
    assert "| 6 | 0." in (tmp_path / "card.md").read_text()


def test_a_card_has_no_figures_of_other_weights(data: dict[str, ImageSet], tmp_path: Path):
    train_tiny(data, tmp_path, steps=4, held_out=PICTURE)
    assert read_metadata(tmp_path / "model.safetensors")["figures"]
    ended = train_tiny(data, tmp_path, steps=8, resume=True)
    assert not ended.state.figures
    assert read_metadata(tmp_path / "model.safetensors")["figures"] == {}
    assert train_tiny(data, tmp_path, steps=9, held_out=PICTURE, resume=True).state.figures


@pytest.mark.parametrize("held", [[], {}, {"step": 3}, {"0.weight": torch.zeros(3)}])
def test_a_checkpoint_of_something_else_is_one_sentence(held: Any, data: dict[str, ImageSet], tmp_path: Path):
    torch.save(held, tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match=r"checkpoint\.pt cannot be read as a training checkpoint"):
        train_tiny(data, tmp_path, resume=True)


class Other(Tiny):
    """The same options, another network: its code was changed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.network.append(torch.nn.Conv2d(3, 3, 1))


def test_a_network_that_was_changed_meanwhile_is_one_sentence(data: dict[str, ImageSet], tmp_path: Path):
    train_tiny(data, tmp_path, steps=1)
    with pytest.raises(WeightsError, match="does not fit this network"):
        train_tiny(data, tmp_path, Other(), resume=True)


def test_a_card_shows_no_preview_of_another_run(data: dict[str, ImageSet], tmp_path: Path):
    train_tiny(data, tmp_path, steps=8, preview_every=4, held_out=PICTURE)
    (tmp_path / "checkpoint.pt").unlink()
    train_tiny(data, tmp_path, steps=3, preview_every=4, held_out=PICTURE)
    assert "step_0000003.png" in (tmp_path / "card.md").read_text()


# -- the command line -------------------------------------------------------------------------------------------------


def test_a_resume_before_the_first_checkpoint_begins_from_the_same_weights(run, both, tmp_path, capsys):  # noqa: F811
    assert run("tint-net", *both, "--out", tmp_path / "a", "--steps", "30") == 0
    weights = tmp_path / "a/model.safetensors"
    assert run("tint-net", *both, "--out", tmp_path / "b", "--steps", "1", "--init-from", weights, "--lr", "1e-9") == 0
    (tmp_path / "b/checkpoint.pt").unlink()  # as if it had been killed before there was one
    assert run("tint-net", *both, "--out", tmp_path / "b", "--resume") == 0
    ours, theirs = load_file(tmp_path / "b/model.safetensors"), load_file(weights)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    facts = read_metadata(tmp_path / "b/model.safetensors")
    assert facts["started_from"].startswith("a/model.safetensors")
    assert str(tmp_path) not in json.dumps(facts)
    # A checkpoint needs them no more.
    weights.unlink()
    assert run("tint-net", *both, "--out", tmp_path / "b", "--resume", "--steps", "2") == 0
    (tmp_path / "b/checkpoint.pt").unlink()
    assert run("tint-net", *both, "--out", tmp_path / "b", "--resume") == 2
    assert "There is no file" in capsys.readouterr().err


@pytest.mark.parametrize("notes", ["2024", "null", '["a"]', "a | b\nc"])
def test_notes_are_text_whatever_they_say(notes, run, both, tmp_path):  # noqa: F811
    assert run("tint-net", *both, "--out", tmp_path, "--steps", "1", "--notes", notes) == 0
    assert read_metadata(tmp_path / "model.safetensors")["notes"] == notes
    rows = (tmp_path / "card.md").read_text().split("\n\n")[1].splitlines()
    assert all(row.startswith("|") and row.replace(r"\|", "").count("|") == 3 for row in rows)
    assert f"\n\n{notes}\n" in (tmp_path / "card.md").read_text()


def test_a_run_does_not_lie_among_its_images(run, photos, tmp_path, capsys):  # noqa: F811
    """Its previews would be images of the next run, and of its own when it goes on."""
    content = shutil.copytree(photos / "content", tmp_path / "content")
    given = ["--content-dir", content, "--style-dir", photos / "style", "--device", "cpu", "--steps", "1"]
    for out in (content, content / "runs/my"):
        assert run("tint-net", *given, "--out", out) == 2
        assert f"--out {out} lies in the folder of content images" in capsys.readouterr().err.splitlines()[-1]
    assert run("tint-net", *given, "--out", tmp_path / "content-run") == 0


def test_held_out_images_are_never_trained_on(run, both, photos, tmp_path, capsys):  # noqa: F811
    copied = shutil.copy(photos / "content/0.png", tmp_path / "copy.png")
    other = tmp_path / "other.png"
    Image.new("RGB", (40, 40), (9, 80, 30)).save(other)
    held_out = ["--held-out-size", "long:32", "--held-out-content"]
    for given in (copied, f"{other},{photos / 'content/0.png'}"):
        assert run("tint-net", *both, "--out", tmp_path / "r", "--steps", "1", *held_out, given) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "among the content images" in said
    assert not (tmp_path / "r").exists()
    # What is not read is not held out.
    few = [f"{other},{copied}", "--held-out-count", "1"]
    assert run("tint-net", *both, "--out", tmp_path / "r", "--steps", "1", *held_out, *few) == 0


# -- the cache --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["index.json", "pixels.bin"])
@pytest.mark.parametrize("left", [None, b"", b"{}"])
def test_a_damaged_cache_is_one_sentence(name: str, left: bytes | None, photos, tmp_path: Path):  # noqa: F811
    cache = tmp_path / "cache"
    ImageSet.open(photos / "content", cache_dir=cache)
    (file,) = cache.glob(f"*/{name}")
    if left is None and name == "pixels.bin":
        file.unlink()
    else:
        file.write_bytes(left or b"")
    with pytest.raises(ImageError, match="is damaged: delete that folder"):
        ImageSet.open(photos / "content", cache_dir=cache)


def test_folders_of_one_relative_name_are_two_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = []
    for place, shade in (("a", 10), ("b", 200)):
        (tmp_path / place / "photos").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        Image.new("RGB", (20, 20), (shade,) * 3).save("photos/0.bmp")
        os.utime("photos/0.bmp", (0, 0))
        found.append(ImageSet.open("photos", cache_dir=tmp_path / "cache").image(0)[0, 0, 0])
    assert found == [10, 200]
