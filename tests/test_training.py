"""The trainer on a network of a few weights, and the decoders with their least-squares start."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from zoo import images
from zoo.errors import ConfigError, ImageError, InputError, NumericalError, WeightsError
from zoo.nn.decoder import VGGDecoder, channels, reflect, undone
from zoo.training import ImageSet, TrainConfig, TrainingTask, export_checkpoint, find_images, read_metadata, train
from zoo.training.data import Crops, Loader, Sampler
from zoo.training.export import plot_losses
from zoo.training.trainer import TrainState
from zoo.training.whitened import WhitenedAdam, measure, sample_patches
from zoo.weights import read_state

TINY = TrainConfig(steps=12, batch_size=2, crop=16, lr=1e-2, log_every=4, preview_every=0, precision="fp32", warmup=2)


class Tiny(TrainingTask):
    """Learns to undo a fixed tint, with noise that must come out the same after a resume."""

    method, paper, sets = "tiny", "none", ("content", "style")
    defaults = TINY

    def __init__(self, channels: int = 4, spoil_at: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.network = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 3, 1))
        for parameter in self.network.parameters():
            nn.init.normal_(parameter, std=0.2, generator=generator)
        self.spoil_at, self.calls = spoil_at, 0

    def loss(self, batch):
        self.calls += 1
        target = batch["content"]
        tinted = target * 0.5 + 0.1 * batch["style"].mean((2, 3), keepdim=True)
        output = self.network(tinted + 0.01 * torch.randn_like(tinted)).float()
        pixel = (output - target).pow(2).mean()
        if self.spoil_at and self.calls >= self.spoil_at:
            pixel = pixel * math.nan
        return {"total": pixel, "brightness": (output.mean() - target.mean()).abs()}

    def evaluate(self, held_out):
        return {"error": float((self.network(held_out["content"][0]) - held_out["content"][0]).abs().mean())}

    def preview(self, held_out):
        return [[image, self.network(image).clamp(0, 1)] for image in held_out["content"]]

    def describe(self):
        return {"channels": self.network[0].out_channels}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Ten smooth pictures for each of two sets, of several sizes."""
    root = tmp_path_factory.mktemp("training-images")
    random = np.random.default_rng(1)
    for name in ("content", "style"):
        (root / name / "deep").mkdir(parents=True)
        for index in range(10):
            small = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
            picture = small.resize((60 + 5 * index, 48 + 3 * index), Image.Resampling.BICUBIC)
            picture.save(root / name / ("deep" if index % 2 else ".") / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def data(folders):
    return {n: ImageSet.open(folders / n, store=40, cache_dir=folders / "cache") for n in ("content", "style")}


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch):
    """Drawing takes longer than all of a tiny run."""
    monkeypatch.setattr("zoo.training.export.plot_losses", lambda folder: None)


def run(data, folder: Path, task: TrainingTask | None = None, *, resume=False, progress=None, **options):
    keep = {k: options.pop(k) for k in ("init_from", "held_out", "command", "notes") if k in options}
    config = TrainConfig.make({**TINY.to_dict(), "zoom": tuple(TINY.zoom), **options})
    return train(task or Tiny(), config, data, folder, resume=resume, progress=progress, **keep)


def losses(folder: Path) -> list[list[str]]:
    with (folder / "losses.csv").open(newline="") as file:
        return list(csv.reader(file))


# --- images ----------------------------------------------------------------------------------------------------------


def test_cache_holds_the_decoded_images(data, folders):
    files = sorted((folders / "content").rglob("*.png"))
    assert len(data["content"]) == 10
    for index, file in enumerate(find_images(folders / "content")):
        expected = images.resize(images.read(file).pixels, "short:40")
        stored = torch.from_numpy(data["content"].image(index).copy()).permute(2, 0, 1)[None] / 255
        assert stored.shape == expected.shape
        assert (stored - expected.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
        assert file in files


def test_cache_is_built_once_and_again_when_a_file_changes(folders, tmp_path, monkeypatch):
    for index in range(2):
        Image.new("RGB", (20, 20), (index, 0, 0)).save(tmp_path / f"{index}.png")
    heard = []
    first = ImageSet.open(tmp_path, cache_dir=tmp_path / "c", progress=lambda *a: heard.append(a))
    assert heard == [(1, 2), (2, 2)]
    again = ImageSet.open(tmp_path, cache_dir=tmp_path / "c", progress=lambda *a: heard.append(a))
    assert len(heard) == 2
    assert again.digest == first.digest
    Image.new("RGB", (22, 20), (9, 9, 9)).save(tmp_path / "1.png")
    changed = ImageSet.open(tmp_path, cache_dir=tmp_path / "c", progress=lambda *a: heard.append(a))
    assert len(heard) == 4
    assert changed.image(1)[0, 0].tolist() == [9, 9, 9]


def test_damaged_files_are_skipped_and_named(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    found = ImageSet.open(tmp_path, cache_dir=tmp_path / "c")
    assert len(found) == 1
    assert [Path(name).name for name, _ in found.skipped] == ["b.jpg"]
    assert found.skipped[0][1]
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match="None of the 1 images"):
        ImageSet.open(tmp_path, cache_dir=tmp_path / "c")


def test_an_interrupted_cache_leaves_nothing_half_made(tmp_path):
    for index in range(3):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{index}.png")

    def interrupt(done, _total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ImageSet.open(tmp_path, cache_dir=tmp_path / "c", progress=interrupt)
    assert [p for p in (tmp_path / "c").iterdir() if p.is_dir()] == []
    assert len(ImageSet.open(tmp_path, cache_dir=tmp_path / "c")) == 3


def test_lists_of_files(folders, tmp_path):
    some = find_images(folders / "content")[:3]
    listing = tmp_path / "files.txt"
    listing.write_text("# chosen\n" + "\n".join(map(str, some)) + "\n\n")
    assert find_images(listing) == some
    assert find_images([listing, some[0], some[1]]) == some
    with pytest.raises(ImageError, match="does not exist"):
        find_images(tmp_path / "absent")


def test_crops_are_windows_of_the_image_at_zoom_one():
    picture = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)
    windows = {picture[y : y + 8, x : x + 8].tobytes() for y in range(23) for x in range(33)}
    windows |= {picture[y : y + 8, x : x + 8][:, ::-1].tobytes() for y in range(23) for x in range(33)}
    random = np.random.default_rng(0)
    cuts = [Crops(8).cut(picture, random).tobytes() for _ in range(50)]
    assert set(cuts) <= windows
    assert len(set(cuts)) > 30


def test_crops_of_other_zooms_keep_the_size_and_the_picture():
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    random = np.random.default_rng(0)
    for zoom, slope in ((2.0, 2.0), (0.5, 8.0)):
        cut = Crops(16, (zoom, zoom), flip=False).cut(ramp, random).astype(float)
        assert cut.shape == (16, 16, 3)
        # A reduced crop spans more of the ramp per pixel.
        assert np.diff(cut[8, 3:13, 0]).mean() == pytest.approx(slope, rel=0.1)
    assert Crops(16).cut(ramp[:9, :12], random).shape == (16, 16, 3)
    with pytest.raises(InputError):
        Crops(16, (2.0, 1.0))


def test_every_image_comes_once_before_any_comes_again(data):
    sampler = Sampler(data["content"], "content", Crops(16), batch_size=2, seed=5)
    first, second = ([sampler.index(n) for n in range(k, k + 10)] for k in (0, 10))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    other = Sampler(data["content"], "style", Crops(16), batch_size=2, seed=5)
    assert [other.index(n) for n in range(10)] != first


def test_a_batch_depends_on_its_number_alone(data):
    def make():
        return Sampler(data["content"], "content", Crops(16, (0.8, 1.3)), batch_size=4, seed=5)

    walked = make()
    for position in range(7):
        batch = walked.batch(position)
    assert torch.equal(make().batch(6), batch)
    # Two processes with half the batch see what one process sees.
    halves = Sampler(data["content"], "content", Crops(16, (0.8, 1.3)), batch_size=2, seed=5)
    assert torch.equal(torch.cat([halves.batch(6, rank, 2) for rank in range(2)]), batch)


def test_loader_gives_the_samplers_batches_in_order(data):
    sampler = Sampler(data["style"], "style", Crops(16), batch_size=2, seed=0)
    loader = Loader({"style": sampler}, first=3)
    try:
        for position in range(3, 12):
            assert torch.equal(next(loader)["style"], sampler.batch(position))
    finally:
        loader.close()
    assert not loader._thread.is_alive()


def test_loader_passes_errors_on(data):
    sampler = Sampler(data["style"], "style", Crops(16), batch_size=2, seed=0)
    sampler.batch = lambda *a: 1 / 0  # type: ignore[method-assign]
    loader = Loader({"style": sampler})
    with pytest.raises(ZeroDivisionError):
        next(loader)
    loader.close()


# --- the trainer -----------------------------------------------------------------------------------------------------


def test_the_plot_shows_every_loss(tmp_path):
    rows = "".join(f"{i},0.1,{1 / (i + 1)},{(-1) ** i},2\n" for i in range(300))
    (tmp_path / "losses.csv").write_text("step,lr,total,signed,grad_norm\n" + rows)
    path = plot_losses(tmp_path)
    assert path is not None
    height, width = images.read(path).size
    assert (width, height) == (800, 520)
    (tmp_path / "losses.csv").write_text("step,lr,total,grad_norm\n")
    assert plot_losses(tmp_path) is None


def test_a_run_leaves_weights_that_say_where_they_come_from(data, tmp_path):
    heard: list[TrainState] = []
    task = Tiny()
    picture = {"content": [torch.rand(1, 3, 20, 20)]}
    result = run(
        data, tmp_path / "r", task, steps=40, evaluate_every=10, preview_every=40, held_out=picture,
        command="zoo train tiny", notes="Images made by a test.", progress=lambda s: heard.append(s),
    )  # fmt: skip
    assert result.ended == "steps"
    assert [s.step for s in heard] == list(range(4, 41, 4))
    assert 0 <= heard[-1].loading <= 1
    assert heard[-1].losses["total"] < 0.8 * heard[0].losses["total"]
    rows = losses(tmp_path / "r")
    assert rows[0] == ["step", "lr", "total", "brightness", "grad_norm"]
    assert [int(row[0]) for row in rows[1:]] == list(range(1, 41))

    state = read_state(tmp_path / "r/model.safetensors")
    for name, value in task.network.state_dict().items():
        assert torch.equal(state[name], value.half().float())
    facts = read_metadata(tmp_path / "r/model.safetensors")
    assert (facts["method"], facts["step"], facts["command"]) == ("tiny", 40, "zoo train tiny")
    assert facts["config"]["steps"] == 40
    assert facts["data"]["content"]["images"] == 10
    assert facts["machine"]["device"] == "cpu"
    card = (tmp_path / "r/card.md").read_text()
    for part in ("zoo train tiny", "Images made by a test.", "step_0000040.png", "content: 10 images"):
        assert part in card
    evaluations = (tmp_path / "r/evaluation.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in evaluations] == ["step", "10", "20", "30", "40"]
    assert images.read(tmp_path / "r/previews/step_0000040.png").size[0] > 192
    assert list((tmp_path / "r/tensorboard").iterdir())
    assert not [p for p in (tmp_path / "r").iterdir() if p.name.startswith(".")]


def test_without_held_out_images_the_preview_shows_training_images(data, tmp_path):
    run(data, tmp_path, preview_every=6)
    names = sorted(p.name for p in (tmp_path / "previews").iterdir())
    assert names == ["step_0000006.png", "step_0000012.png"]


def test_accumulated_batches_are_one_larger_batch(data, tmp_path):
    class Plain(Tiny):
        def loss(self, batch):
            output = self.network(batch["content"] * 0.5)
            return {"total": (output - batch["content"]).pow(2).mean()}

    for name, batch_size, accumulate in (("one", 8, 1), ("four", 2, 4)):
        run(data, tmp_path / name, Plain(), batch_size=batch_size, accumulate=accumulate)
    for a, b in zip(losses(tmp_path / "one")[1:], losses(tmp_path / "four")[1:], strict=True):
        assert float(a[2]) == pytest.approx(float(b[2]), rel=1e-4)


def test_stopped_and_resumed_equals_unbroken(data, tmp_path):
    task, before = Tiny(), torch.random.get_rng_state()
    whole = run(data, tmp_path / "whole", task, steps=16, ema=0.9)
    assert torch.equal(torch.random.get_rng_state(), before)
    asked = run(data, tmp_path / "parts", steps=16, ema=0.9, progress=lambda s: s.step == 8)
    assert (asked.ended, asked.state.step) == ("asked", 8)
    run(data, tmp_path / "parts", steps=16, ema=0.9, resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    one, two = (read_state(tmp_path / n / "model.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert whole.state.step == 16


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from test_training import TINY, Tiny
from zoo.training import ImageSet, TrainConfig, train
root, out, steps, pause = sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
data = {n: ImageSet.open(f"{root}/{n}", store=40, cache_dir=f"{root}/cache") for n in ("content", "style")}
options = {**TINY.to_dict(), "zoom": (1.0, 1.0), "steps": steps, "log_every": 1, "checkpoint_minutes": 0.0}
from pathlib import Path
train(Tiny(), TrainConfig.make(options), data, Path(out), resume=True, progress=lambda s: time.sleep(pause))
"""


def start(folders: Path, out: Path, steps: int, pause: float, *launcher: str) -> subprocess.Popen:
    script = folders / "script.py"
    script.write_text(SCRIPT)
    arguments = [str(Path(__file__).parent), str(folders), str(out), str(steps), str(pause)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), *arguments], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_killed_and_resumed_equals_unbroken(data, folders, tmp_path):
    threads = torch.get_num_threads()
    process = start(folders, tmp_path / "killed", 400, 0.005)
    checkpoint = tmp_path / "killed/checkpoint.pt"
    deadline = time.monotonic() + 60
    while not checkpoint.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0.05, 0.6))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < reached < 400
    steps = reached + 20
    options = {"steps": steps, "log_every": 1}
    torch.set_num_threads(1)
    try:
        run(data, tmp_path / "killed", resume=True, **options)
        run(data, tmp_path / "whole", **options)
    finally:
        torch.set_num_threads(threads)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_two_processes_equal_one_with_twice_the_batch(folders, data, tmp_path):
    class Quiet(Tiny):
        def loss(self, batch):
            output = self.network(batch["content"])
            return {"total": (output - batch["content"]).pow(2).mean()}

    script = SCRIPT.replace("TINY, Tiny", "TINY, Tiny as Base").replace(
        "root, out", "Tiny = type('Quiet', (Base,), {'loss': lambda s, b: {'total': "
        "(s.network(b['content']) - b['content']).pow(2).mean()}})\nroot, out", 1
    )  # fmt: skip
    path = folders / "two.py"
    path.write_text(script)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        # What torchrun sets, without its own process and its name look-ups.
        given = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2,
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
                 "TORCHELASTIC_USE_AGENT_STORE": "False", "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
        arguments = [str(Path(__file__).parent), str(folders), str(tmp_path / "two"), "6", "0"]
        environment = {**os.environ, **{k: str(v) for k, v in given.items()}, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
        processes.append(
            subprocess.Popen(
                [sys.executable, str(path), *arguments], env=environment, stderr=subprocess.PIPE, text=True
            )
        )
    try:
        for process in processes:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
    run(data, tmp_path / "one", Quiet(), steps=6, batch_size=4)
    for a, b in zip(losses(tmp_path / "two")[1:], losses(tmp_path / "one")[1:], strict=True):
        assert float(a[2]) == pytest.approx(float(b[2]), rel=1e-4)


def test_time_limit_ends_at_a_usable_checkpoint(data, tmp_path):
    first = run(data, tmp_path, steps=100_000, time_limit=0.02, log_every=1)
    assert first.ended == "time"
    assert 0 < first.state.step < 100_000
    assert read_metadata(tmp_path / "model.safetensors")["step"] == first.state.step
    assert run(data, tmp_path, steps=100_000, time_limit=0.02, resume=True, log_every=1).state.step <= (
        first.state.step + 1
    )
    more = run(data, tmp_path, steps=first.state.step + 8, resume=True)
    assert (more.ended, more.state.step) == ("steps", first.state.step + 8)


def test_a_run_is_not_overwritten_nor_resumed_as_another(data, tmp_path):
    run(data, tmp_path)
    with pytest.raises(ConfigError, match="already holds a run"):
        run(data, tmp_path)
    with pytest.raises(ConfigError, match="begun with other crop"):
        run(data, tmp_path, resume=True, crop=20)
    with pytest.raises(ConfigError, match="begun with other task"):
        run(data, tmp_path, Tiny(channels=5), resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    with pytest.raises(WeightsError, match="cannot be read"):
        run(data, tmp_path, resume=True)


def test_init_from_goes_on_from_exported_weights(data, tmp_path):
    run(data, tmp_path / "a", steps=40)
    weights = tmp_path / "a/model.safetensors"
    run(data, tmp_path / "b", init_from=weights, steps=4, lr=1e-9, log_every=1)
    tail = [float(row[2]) for row in losses(tmp_path / "a")[-8:]]
    assert float(losses(tmp_path / "b")[1][2]) < 2 * max(tail)
    assert "model.safetensors" in read_metadata(tmp_path / "b/model.safetensors")["started_from"]
    with pytest.raises(WeightsError, match="does not fit"):
        run(data, tmp_path / "c", Tiny(channels=5), init_from=weights)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(data, tmp_path):
    run(data, tmp_path, Tiny(), steps=8)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(NumericalError, match="step 10"):
        run(data, tmp_path, Tiny(spoil_at=2), steps=16, resume=True, checkpoint_minutes=0.0)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    run(data, tmp_path, Tiny(), steps=16, resume=True)
    assert [int(row[0]) for row in losses(tmp_path)[1:]] == list(range(1, 17))


def test_missing_images_and_formats_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="needs style images"):
        run({"content": data["content"]}, tmp_path)
    with pytest.raises(ConfigError, match="needs CUDA"):
        run(data, tmp_path, precision="fp16", accelerator="cpu")
    with pytest.raises(ConfigError, match="low,high"):
        TrainConfig(zoom=(1.0,))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "constant"}, [0.005, 0.01, 0.01, 0.01]),
        ({"schedule": "inverse", "decay": 1.0}, [0.005, 0.01 / 2, 0.01 / 3, 0.01 / 4]),
        ({"schedule": "step", "decay": 0.5, "decay_every": 2}, [0.005, 0.01, 0.005, 0.005]),
        ({"schedule": "cosine"}, [0.005, 0.01 * (0.5 + 0.5 * math.cos(math.pi / 4)), 0.005, 0.01 * 0.146446609]),
    ],
)
def test_learning_rate_schedules(data, tmp_path, options, expected):
    run(data, tmp_path, steps=4, **options)
    assert [float(row[1]) for row in losses(tmp_path)[1:]] == pytest.approx(expected)


def test_the_moving_average_is_what_is_exported(data, tmp_path):
    task = Tiny()
    seen: list[torch.Tensor] = []
    original = task.loss

    def watch(batch):
        seen.append(task.network[0].weight.detach().clone())
        return original(batch)

    task.loss = watch  # type: ignore[method-assign]
    run(data, tmp_path, task, steps=6, ema=0.9)
    weights = [*seen[1:], task.network[0].weight.detach()]
    average = seen[0]
    for step, weight in enumerate(weights, 1):
        average = torch.lerp(average, weight, 1 - min(0.9, (1 + step) / (10 + step)))
    exported = read_state(tmp_path / "model.safetensors")["0.weight"]
    assert torch.allclose(exported, average, atol=1e-3)
    assert not torch.allclose(exported, weights[-1], atol=1e-3)
    (tmp_path / "model.safetensors").unlink()
    export_checkpoint(Tiny(), tmp_path)
    assert torch.equal(read_state(tmp_path / "model.safetensors")["0.weight"], exported)


def test_gradients_are_clipped(data, tmp_path):
    class Steep(Tiny):
        def loss(self, batch):
            return {"total": 1000 * super().loss(batch)["total"]}

    seen = []
    task = Steep()
    task.network[0].weight.register_hook(lambda g: seen.append(float(g.norm())))
    run(data, tmp_path, task, steps=2, clip=0.5, log_every=1)
    assert min(float(row[-1]) for row in losses(tmp_path)[1:]) > 0.5
    assert max(seen) > 0.5
    optimiser = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["optimiser"]
    moment = torch.cat([s["exp_avg"].flatten() for s in optimiser["state"].values()])
    assert float(moment.norm()) <= 0.5 * (0.1 + 0.09) + 1e-6


# --- decoders --------------------------------------------------------------------------------------------------------


def test_decoder_has_the_papers_size():
    assert sum(p.numel() for p in VGGDecoder(4).parameters()) == 3_505_219


@pytest.mark.parametrize("level", range(1, 6))
def test_decoder_gives_an_image_of_the_encoders_input_size(level):
    decoder = VGGDecoder(level)
    features = torch.rand(2, channels(level), 3, 4)
    scale = 2 ** (level - 1)
    assert decoder(features).shape == (2, 3, 3 * scale, 4 * scale)
    assert decoder(features[..., :1, :1]).shape == (2, 3, scale, scale)
    reached = decoder.descend(features)
    assert {k: v.shape[1] for k, v in reached.items()} == {k: channels(k) if k else 3 for k in range(level)}
    assert set(decoder.descend(features, level - 1)) == {level - 1}
    with pytest.raises(InputError, match="decodes features"):
        decoder(torch.rand(1, 7, 4, 4))


def test_a_decoder_holds_the_one_below_as_its_lower_part():
    small, large = VGGDecoder(2), VGGDecoder(3)
    assert large.load_lower(small.state_dict()) == ("conv1_1", "conv1_2", "conv2_1")
    features = torch.rand(1, 256, 4, 4)
    below = large.descend(features)[1 + 1]
    assert torch.allclose(small(below), large(features), atol=1e-6)


def test_each_convolution_undoes_its_namesake():
    names = [name for name, _, _ in VGGDecoder(4).convolutions()]
    assert names == ["conv4_1", "conv3_4", "conv3_3", "conv3_2", "conv3_1", "conv2_2", "conv2_1", "conv1_2", "conv1_1"]
    assert [undone(name) for name in names] == [
        "pool3", "relu3_3", "relu3_2", "relu3_1", "pool2", "relu2_1", "pool1", "relu1_1", "",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="levels 1 to 5"):
        VGGDecoder(6)


def test_reflection_falls_back_where_there_is_nothing_to_reflect():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert reflect(x)[0, 0, 0].tolist() == [4, 3, 4, 5, 4]
    assert reflect(x[..., :1, :])[0, 0, :, 0].tolist() == [0, 0, 0]


def test_least_squares_finds_a_decoder_without_training(data):
    from zoo.training.reconstruction import ReconstructionConfig, ReconstructionTask

    task = ReconstructionTask(ReconstructionConfig(level=2, encoder="vgg19"))
    picture = torch.from_numpy(data["style"].image(9).copy()).permute(2, 0, 1)[None] / 255
    held_out = {"content": [picture[..., :39, :38]]}
    untrained = task.evaluate(held_out)["psnr"]
    sampler = Sampler(data["content"], "content", Crops(32), batch_size=8, seed=0)
    before = torch.random.get_rng_state()
    task.prepare({"content": sampler.batch(i).float() / 255} for i in range(100))
    assert torch.equal(before, torch.random.get_rng_state())
    solved = task.evaluate(held_out)["psnr"]
    assert solved > 24
    assert solved > untrained + 10
    [[_, output]] = task.preview(held_out)
    assert output.shape == held_out["content"][0].shape
    loss = task.loss({"content": sampler.batch(200).float() / 255})
    loss["total"].backward()
    assert all(p.grad is not None for p in task.network.parameters())
    assert all(p.grad is None for p in task.encoder.parameters())


def test_lower_decoders_are_kept_by_the_least_squares_start(data, tmp_path):
    from safetensors.torch import save_file

    from zoo.training.reconstruction import ReconstructionConfig, ReconstructionTask

    lower = VGGDecoder(1)
    save_file(lower.state_dict(), tmp_path / "lower.safetensors")
    task = ReconstructionTask(
        ReconstructionConfig(level=2, encoder="vgg19", lower=str(tmp_path / "lower.safetensors"), feature_weight=1)
    )
    start = task.network.conv2_1.weight.clone()
    sampler = Sampler(data["content"], "content", Crops(32), batch_size=8, seed=0)
    task.prepare({"content": sampler.batch(i).float() / 255} for i in range(100))
    assert torch.equal(task.network.conv1_1.weight, lower.conv1_1.weight)
    assert not torch.equal(task.network.conv2_1.weight, start)
    loss = task.loss({"content": sampler.batch(0).float() / 255})
    assert set(loss) == {"total", "pixel", "feature"}
    assert float(loss["total"].detach()) == pytest.approx(float(loss["pixel"].detach() + loss["feature"].detach()))


def test_whitening_makes_the_inputs_of_every_convolution_alike():
    random = torch.Generator().manual_seed(0)
    mix = torch.randn(6, 6, generator=random) * torch.logspace(0, -1, 6)
    network = nn.Sequential(nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 1))
    batches = [torch.einsum("oc,bchw->bohw", mix, torch.randn(4, 6, 12, 12, generator=random)) for _ in range(40)]
    whitening = measure(network, network, iter(batches), count=20, samples=10**6)
    assert {name: tuple(p.shape) for name, p in whitening.items()} == {"0": (55, 55), "2": (6, 6)}
    for patches, name in ((batches[30:], "0"), ([network[:2](b) for b in batches[30:]], "2")):
        every = torch.cat([
            sample_patches(x.detach(), network.get_submodule(name), 10**6, 1, random)[0] for x in patches
        ])  # fmt: skip
        white = every @ whitening[name].float().T
        moment = white.T @ white / len(every)
        raw = every.T @ every / len(every)
        values, before = torch.linalg.eigvalsh(moment), torch.linalg.eigvalsh(raw)
        assert before.max() / before.min() > 15
        assert values.max() / values.min() < 3
    for refused in (nn.Conv2d(3, 3, 3, padding=1), nn.Sequential(nn.Conv2d(3, 3, 3), nn.PReLU())):
        with pytest.raises(InputError, match="plain convolutions"):
            measure(refused, refused, iter(()))


def test_whitened_adam_beats_adam_where_inputs_are_correlated():
    random = torch.Generator().manual_seed(0)
    mix = torch.linalg.qr(torch.randn(8, 8, generator=random))[0] * torch.logspace(0, -2, 8)
    inputs = torch.einsum("oc,bchw->bohw", mix, torch.randn(16, 8, 8, 8, generator=random))
    wanted = nn.Conv2d(8, 8, 1)
    with torch.no_grad():
        # A target whose weak input directions matter as much as the strong ones.
        wanted.weight.copy_(torch.linalg.inv(mix)[..., None, None])
        target = wanted(inputs)
    reached = {}
    for kind in ("adam", "whitened"):
        network = nn.Sequential(nn.Conv2d(8, 8, 1))
        nn.init.zeros_(network[0].weight)
        if kind == "adam":
            optimiser: torch.optim.Optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
        else:
            optimiser = WhitenedAdam(network, 0.03, measure(network, network, iter([inputs] * 8), count=8))
        for _ in range(150):
            loss = (network(inputs) - target).pow(2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        reached[kind] = loss.item()
    assert reached["whitened"] < 0.3 * reached["adam"]
    bare = WhitenedAdam(network, 0.1)
    with pytest.raises(InputError, match="no whitening"):
        bare.step()


def test_a_decoders_run_resumes_with_its_whitening(data, tmp_path):
    from zoo.training.reconstruction import ReconstructionConfig, ReconstructionTask

    def go(folder, **options):
        task = ReconstructionTask(ReconstructionConfig(level=1, encoder="vgg19"))
        return run({"content": data["content"]}, folder, task, crop=16, beta2=0.99, ema=0.9, lr=1e-3, **options)

    go(tmp_path / "whole", steps=8)
    go(tmp_path / "parts", steps=8, progress=lambda s: s.step == 4)
    go(tmp_path / "parts", steps=8, resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_module_command_trains_a_task(folders, tmp_path, capsys):
    from zoo.training.__main__ import main

    arguments = [
        "zoo.training.reconstruction:ReconstructionTask", "--set", f"content={folders / 'content'}",
        "--cache-dir", str(folders / "cache"), "--out", str(tmp_path / "run"), "--level", "1", "--steps", "2",
        "--encoder", "vgg19",
        "--crop", "32", "--batch-size", "2", "--zoom", "0.9,1.1", "--held-out", f"content={folders / 'style'}",
        "--held-out-size", "exact:48", "--held-out-count", "2",
    ]  # fmt: skip
    assert main(arguments) == 0
    assert "ended by steps at step 2" in capsys.readouterr().out
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["task"]["level"] == 1
    assert record["figures"]["psnr"] > 20
    assert "--set content=content --cache-dir cache --out run --level 1" in record["command"]


def test_the_upper_part_alone_is_trained_against_the_level_below() -> None:
    from zoo.training.reconstruction import ReconstructionConfig, ReconstructionTask

    task = ReconstructionTask(ReconstructionConfig(level=2, upper_only=True))
    batch = {"content": torch.rand(2, 3, 32, 32)}
    losses = task.loss(batch)
    taps = task.encoder(batch["content"])
    wanted = taps["relu1_1"]
    reached = task.network.descend(taps["relu2_1"], 1)[1]
    expected = (reached - wanted).square().mean() / wanted.square().mean()
    assert losses["total"].item() == pytest.approx(expected.item(), rel=1e-4)
    before = {name: value.clone() for name, value in task.network.state_dict().items()}
    whitening = measure(task.network, task.loss, iter([batch] * 24))
    assert set(whitening) == {"conv2_1", "conv1_2"}
    optimiser = WhitenedAdam(task.network, 1e-3, whitening)
    task.loss(batch)["total"].backward()
    optimiser.step()
    changed = {name for name, value in task.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{conv}.{part}" for conv in ("conv2_1", "conv1_2") for part in ("weight", "bias")}
    with pytest.raises(ConfigError, match="no level below"):
        ReconstructionTask(ReconstructionConfig(level=1, upper_only=True))
