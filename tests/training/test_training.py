"""The trainer on a network of a few weights, and the decoders with their least-squares start."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import command
import forked
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from training_runs import Tiny, losses, run, write_pictures

from zoo import images
from zoo.errors import ConfigError, ImageError, InputError, NumericalError, WeightsError
from zoo.nn.decoder import VGGDecoder, channels, undone
from zoo.nn.fast import fused, reflect
from zoo.training import ImageSet, TrainConfig, find_images, read_metadata
from zoo.training.data import Crops, Loader, Sampler
from zoo.training.export import plot_losses
from zoo.training.launch import Material, launch, portable
from zoo.training.progress import TrainState
from zoo.training.whitened import WhitenedAdam, WhitenedTask, measure, sample_patches
from zoo.weights import read_state


class Watched(WhitenedTask, Tiny):
    """Its optimiser measures the noisy loss before the first step; what that found and each step's rate are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.config = types.SimpleNamespace(whiten=True)
        generator = torch.Generator().manual_seed(3)
        self.network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
        for parameter in self.network.parameters():
            nn.init.normal_(parameter, std=0.2, generator=generator)
        self.rates: list[float] = []
        self.found: list[torch.Tensor] = []

    def optimizer(self, config, batches):
        optimizer = super().optimizer(config, batches)
        optimizer.register_step_pre_hook(lambda made, *_: self.rates.append(made.param_groups[0]["lr"]))
        self.found = [state["whitening"] for state in optimizer.state.values()]
        return optimizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Ten smooth pictures for each of two sets, of several sizes."""
    return write_pictures(tmp_path_factory.mktemp("training-images"))


@pytest.fixture(scope="module")
def data(folders):
    return {n: ImageSet.open(folders / n, store=40, cache_dir=folders / "cache") for n in ("content", "style")}


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch):
    """Drawing takes longer than all of a tiny run."""
    monkeypatch.setattr("zoo.training.export.plot_losses", lambda folder: None)


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


def test_a_list_that_is_no_text_is_refused(folders, tmp_path):
    (some,) = find_images(folders / "content")[:1]
    listing = tmp_path / "files.txt"
    # As an editor of Windows saves UTF-8.
    listing.write_text(str(some), encoding="utf-8-sig")
    assert find_images(listing) == [some]
    for line, encoding in (("caf\u00e9.png", "latin-1"), ("cafe.png", "utf-16"), ("cafe.png", "utf-16-le")):
        listing.write_bytes(line.encode(encoding))
        with pytest.raises(ImageError, match=r"files\.txt.*UTF-8"):
            find_images(listing)


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
    assert Crops(16, (50.0, 50.0)).cut(ramp, random).shape == (16, 16, 3)
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
from training_runs import TINY, Tiny
from zoo.training import ImageSet, TrainConfig, train
root, out, steps, pause = sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
data = {n: ImageSet.open(f"{root}/{n}", store=40, cache_dir=f"{root}/cache") for n in ("content", "style")}
options = {**TINY.to_dict(), "zoom": (1.0, 1.0), "steps": steps, "log_every": 1, "checkpoint_minutes": 0.0}
from pathlib import Path
train(Tiny(), TrainConfig.make(options), data, Path(out), resume=True, progress=lambda s: time.sleep(pause))
"""


def start(folders: Path, out: Path, steps: int, pause: float) -> subprocess.Popen:
    script = folders / "script.py"
    script.write_text(SCRIPT)
    arguments = [str(Path(__file__).parents[1]), str(folders), str(out), str(steps), str(pause)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return forked.Popen([sys.executable, str(script), *arguments], env=environment, stderr=subprocess.PIPE, text=True)


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


def run_in_two_processes(script: str, folders: Path, *arguments: str) -> None:
    """``script`` in two processes that train together."""
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
        environment = {**os.environ, **{k: str(v) for k, v in given.items()}, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        command = [sys.executable, str(path), str(Path(__file__).parents[1]), str(folders), *arguments]
        processes.append(forked.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        for process in processes:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()


def test_two_processes_equal_one_with_twice_the_batch(folders, data, tmp_path):
    class Quiet(Tiny):
        def loss(self, batch):
            output = self.network(batch["content"])
            return {"total": (output - batch["content"]).pow(2).mean()}

    script = SCRIPT.replace("TINY, Tiny", "TINY, Tiny as Base").replace(
        "root, out", "Tiny = type('Quiet', (Base,), {'loss': lambda s, b: {'total': "
        "(s.network(b['content']) - b['content']).pow(2).mean()}})\nroot, out", 1
    )  # fmt: skip
    run_in_two_processes(script, folders, str(tmp_path / "two"), "6", "0")
    run(data, tmp_path / "one", Quiet(), steps=6, batch_size=4)
    for a, b in zip(losses(tmp_path / "two")[1:], losses(tmp_path / "one")[1:], strict=True):
        assert float(a[2]) == pytest.approx(float(b[2]), rel=1e-4)


TOGETHER = """
import os, sys
sys.path[:0] = [sys.argv[1], os.path.join(sys.argv[1], "training")]
import torch
torch.set_num_threads(1)
from pathlib import Path
from test_training import Watched
from training_runs import TINY
import zoo.training.export
from zoo.training import ImageSet, TrainConfig, train
zoo.training.export.plot_losses = lambda folder: None
root, out = sys.argv[2:4]
data = {n: ImageSet.open(f"{root}/{n}", store=40, cache_dir=f"{root}/cache") for n in ("content", "style")}
# The steps are so many that the clock alone decides the learning rate.
options = {"zoom": (1.0, 1.0), "steps": 10**6, "schedule": "cosine", "time_limit": 10.0, "evaluate_every": 2}
held_out = {"content": [torch.rand(1, 3, 16, 16)]}
task = Watched()
config = TrainConfig.make({**TINY.to_dict(), **options})
train(task, config, data, Path(out), held_out=held_out, progress=lambda s: s.step >= 12)
kept = {"rates": task.rates, "found": task.found, "weights": list(task.network.state_dict().values())}
torch.save(kept, f"{out}-{os.environ['RANK']}.pt")
"""


def test_processes_follow_one_clock_and_one_measurement(folders, data, tmp_path):
    run_in_two_processes(TOGETHER, folders, str(tmp_path / "run"))
    first, second = (torch.load(f"{tmp_path / 'run'}-{rank}.pt", weights_only=True) for rank in range(2))
    assert len(first["rates"]) == 12
    # After the warm-up it falls with every step, as the clock goes on.
    assert all(a > b for a, b in itertools.pairwise(first["rates"][1:]))
    assert first["rates"] == second["rates"]
    for name in ("found", "weights"):
        assert len(first[name]) >= 2
        assert all(torch.equal(a, b) for a, b in zip(first[name], second[name], strict=True))


def test_a_measurement_before_the_first_step_does_not_depend_on_what_was_drawn_before(data, tmp_path):
    run(data, tmp_path / "start", Watched(), steps=1)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        task = Watched()
        run(data, tmp_path / str(seed), task, steps=1, init_from=tmp_path / "start/model.safetensors")
        found.append(task.found)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_preparation_is_part_of_the_time(data, tmp_path, monkeypatch):
    now = [0.0]
    clock = types.SimpleNamespace(perf_counter=lambda: now[0], monotonic=time.monotonic)
    monkeypatch.setattr("zoo.training.clock.time", clock)

    class Slow(Tiny):
        def prepare(self, batches):
            now[0] += 90

    first = run(data, tmp_path, Slow(), steps=100, time_limit=1, log_every=1)
    assert (first.ended, first.state.step, first.state.seconds) == ("time", 1, 90)
    assert json.loads((tmp_path / "run.json").read_text())["hours"] == 0.025
    more = run(data, tmp_path, Slow(), steps=3, resume=True)
    assert (more.ended, more.state.seconds) == ("steps", 90)


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


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lr": 0.5}, r"lr \(0\.01, not 0\.5\)"),
        ({"schedule": "cosine"}, r"schedule \(constant, not cosine\)"),
        ({"warmup": 3}, r"warmup \(2, not 3\)"),
        ({"clip": 1.0}, r"clip \(none, not 1\.0\)"),
        ({"beta2": 0.9}, "beta2"),
        ({"decay": 0.1}, "decay"),
        ({"ema": 0.5}, r"ema \(0\.9, not 0\.5\)"),
        ({"ema": None}, "ema"),
        ({"precision": "bf16"}, r"precision \(fp32, not bf16\)"),
        ({"zoom": (1.0, 1.5)}, "zoom"),
    ],
)
def test_what_the_losses_depend_on_is_not_changed_by_a_resume(begun, data, tmp_path, options, told):
    folder = shutil.copytree(begun, tmp_path / "run")
    before = (folder / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=f"begun with other {told}"):
        run(data, folder, resume=True, **{"ema": 0.9, **options})
    assert (folder / "run.json").read_bytes() == before


@pytest.fixture(scope="module")
def begun(data, tmp_path_factory):
    """A run of four updates with a moving average."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.training.export.plot_losses", lambda folder: None)
        run(data, folder, steps=4, ema=0.9)
    return folder


def test_where_a_run_ends_and_what_it_reports_may_change(begun, data, tmp_path):
    folder = shutil.copytree(begun, tmp_path / "run")
    picture = {"content": [torch.rand(1, 3, 20, 20)]}
    free = {"time_limit": 5.0, "checkpoint_minutes": 0.0, "preview_every": 3, "evaluate_every": 2, "log_every": 1}
    run(data, folder, resume=True, steps=8, ema=0.9, held_out=picture, accelerator="cpu", **free)
    run(data, tmp_path / "whole", steps=8, ema=0.9)
    assert losses(folder) == losses(tmp_path / "whole")


def test_a_run_with_other_images_says_which(begun, data, tmp_path):
    folder = shutil.copytree(begun, tmp_path / "run")
    swapped = {"content": data["content"], "style": data["content"]}
    with pytest.raises(ConfigError, match="begun with other style images:"):
        run(swapped, folder, resume=True, ema=0.9)


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


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(data, tmp_path):
    class Kinked(Tiny):
        def loss(self, batch):
            terms = super().loss(batch)
            if self.calls == 2:
                # The root of zero is finite; its slope is not.
                terms["total"] = terms["total"] + (0 * self.network[0].weight).sum().sqrt()
            return terms

    run(data, tmp_path / "a", Tiny(), steps=8)
    task = Kinked()
    with pytest.raises(NumericalError, match=r"gradient is no longer finite at step 10: .*checkpoint\.pt"):
        run(data, tmp_path / "a", task, steps=16, resume=True, checkpoint_minutes=0.0, log_every=1)
    state = torch.load(tmp_path / "a/checkpoint.pt", weights_only=True)
    assert state["step"] == 9
    for weights in (state["network"], task.network.state_dict()):
        assert all(torch.isfinite(value).all() for value in weights.values())
    # What the message advises.
    again = run(data, tmp_path / "b", steps=2, lr=1e-3, init_from=tmp_path / "a/checkpoint.pt")
    assert again.ended == "steps"


def test_init_from_a_checkpoint_takes_its_moving_average(begun, data, tmp_path):
    task = Tiny()
    run(data, tmp_path / "b", task, steps=1, lr=1e-12, init_from=begun / "checkpoint.pt")
    exported = read_state(begun / "model.safetensors")
    last = torch.load(begun / "checkpoint.pt", weights_only=True)["network"]
    for name, value in task.network.state_dict().items():
        assert torch.equal(value.half().float(), exported[name])
        assert not torch.equal(value, last[name])
    (tmp_path / "torn.pt").write_bytes(b"torn")
    with pytest.raises(WeightsError, match="cannot be read as a training checkpoint"):
        run(data, tmp_path / "c", init_from=tmp_path / "torn.pt")


def test_the_seed_decides_the_start_values(folders, tmp_path):
    class Fresh(Tiny):
        def __init__(self, config=None) -> None:
            super().__init__()
            self.network = nn.Conv2d(3, 3, 1)

        def describe(self):
            return {}

    material = Material({n: [str(folders / n)] for n in ("content", "style")}, cache_dir=folders / "cache")
    weights = []
    for index, seed in enumerate((0, 0, 1)):
        torch.manual_seed(index % 2)
        before = torch.random.get_rng_state()
        out = tmp_path / str(index)
        launch("fresh", Fresh, {"seed": seed, "steps": 1, "lr": 1e-9, "store": 40}, material, out)
        assert torch.equal(torch.random.get_rng_state(), before)
        weights.append(read_state(out / "model.safetensors")["weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("/data/me/images/content", "images/content"),
        ("/data/me/adain/content/", "adain/content"),
        ("--out=/data/me/runs/a", "--out=runs/a"),
        ("content=/data/me/photos", "content=me/photos"),
        ("/a/b/c,/d/e/f.txt,g", "b/c,e/f.txt,g"),
        ("/data/my pictures/all", "my pictures/all"),
        ("/data/a=b/c", "a=b/c"),
        ("/data", "data"),
        ("../data", "data"),
        ("runs/a", "runs/a"),
        ("photographs", "photographs"),
        ("builtin:mosaic", "builtin:mosaic"),
        ("Photographs CC0, paintings in the public domain / CC BY", None),
        ("https://example.org/licence/of/images", None),
    ],
)
def test_a_card_shows_the_last_two_names_of_a_path(argument, shown):
    assert portable(argument) == (argument if shown is None else shown)


def test_a_card_tells_folders_of_the_same_name_apart(folders, data, tmp_path):
    run(data, tmp_path)
    card = (tmp_path / "card.md").read_text()
    assert f"content: 10 images from content/deep (5), {folders.name}/content (5)" in card
    assert str(folders) not in card


def test_missing_images_and_formats_are_refused(data, tmp_path):
    with pytest.raises(ConfigError, match="needs style images"):
        run({"content": data["content"]}, tmp_path)
    with pytest.raises(ConfigError, match="needs CUDA"):
        run(data, tmp_path, precision="fp16", accelerator="cpu")
    with pytest.raises(ConfigError, match="low,high"):
        TrainConfig(zoom=(1.0,))
    with pytest.raises(ConfigError, match=r"'zoom' must be a list of numbers >= 0\.0625, <= 16, not 1e-30"):
        TrainConfig(zoom=(1e-30, 1e30))


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
    optimizer = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["optimizers"]["network"]
    moment = torch.cat([s["exp_avg"].flatten() for s in optimizer["state"].values()])
    assert float(moment.norm()) <= 0.5 * (0.1 + 0.09) + 1e-6


def test_a_task_alternates_between_optimisers_and_resumes_exactly(data, tmp_path):
    class Rivals(Tiny):
        """The network and the factor of a critic, in turn; neither moves in the other's step."""

        def __init__(self):
            super().__init__()
            self.network.register_parameter("critic", nn.Parameter(torch.ones(())))

        def optimizers(self, config, batches):
            trained = [p for name, p in self.network.named_parameters() if name != "critic"]
            return {"network": torch.optim.Adam(trained, 1e-2), "critic": torch.optim.SGD([self.network.critic], 1e-2)}

        def step(self, batch, optimizers):
            before = self.network[0].weight.detach().clone()
            optimizers.minimize(
                self.network.critic * self.loss(batch)["total"].detach() + self.network[0].bias.sum(), "critic"
            )
            assert torch.equal(self.network[0].weight, before)
            assert all(p.grad is None or not p.grad.any() for p in self.network.parameters())
            losses = optimizers.loss(batch)
            critic = self.network.critic.detach().clone()
            optimizers.minimize(self.network.critic * losses["total"])
            assert torch.equal(self.network.critic, critic)
            return losses

    whole, split = tmp_path / "whole", tmp_path / "split"
    run(data, whole, Rivals(), steps=6)
    run(data, split, Rivals(), steps=3)
    run(data, split, Rivals(), steps=6, resume=True)
    ours, theirs = (read_state(folder / "model.safetensors") for folder in (whole, split))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert ours["critic"] < 1
    with pytest.raises(ConfigError, match="leave --accumulate at 1"):
        run(data, tmp_path / "more", Rivals(), accumulate=2)


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


@pytest.mark.parametrize("level", [2, 3, 4, 5])
def test_a_decoder_by_phases_gives_the_same_image(level: int) -> None:
    torch.manual_seed(level)
    decoder, cell = VGGDecoder(level), 2 ** (level - 1)
    features = torch.randn(2, channels(level), 128 // cell, 160 // cell).relu()
    seen: list[str] = []
    with torch.no_grad():
        quick = decoder(features)
        slow = decoder.descend(features)[0]
        for layer in (features, features.contiguous(memory_format=torch.channels_last)):
            torch.testing.assert_close(decoder(layer), slow, atol=1e-4, rtol=1e-4)
        if fused.OPERATOR is not None:
            assert not torch.equal(quick, slow)  # two ways, not one
        decoder.conv1_1.register_forward_hook(lambda *_: seen.append("conv1_1"))  # type: ignore[union-attr]
        assert torch.equal(decoder(features), slow)
    assert seen
    torch.testing.assert_close(decoder(features), slow, atol=1e-4, rtol=1e-4)


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


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (lambda name: False, "missing"),
        (lambda name: not name.endswith("bias"), "missing conv1_1.bias"),
        (lambda name: name.startswith("conv1"), "missing conv2_1"),
    ],
)
def test_a_lower_decoder_that_does_not_fit_is_refused(tmp_path, kept, told):
    from safetensors.torch import save_file

    from zoo.training.reconstruction import ReconstructionConfig, ReconstructionTask

    file = tmp_path / "lower.safetensors"
    state = {name: value for name, value in VGGDecoder(2).state_dict().items() if kept(name)}
    save_file({**state, "other.weight": torch.zeros(1)}, file)
    task = ReconstructionTask(ReconstructionConfig(level=3, encoder="vgg19", lower=str(file)))
    with pytest.raises(WeightsError, match=told):
        task.prepare(iter(()))
    with pytest.raises(ConfigError, match="no level below"):
        ReconstructionTask(ReconstructionConfig(level=1, lower=str(file)))


def test_a_lower_decoder_of_another_width_is_refused(tmp_path):
    from safetensors.torch import save_file

    from zoo.training.reconstruction import ReconstructionConfig, ReconstructionTask

    file = tmp_path / "lower.safetensors"
    save_file({**VGGDecoder(1).state_dict(), "conv1_1.weight": torch.zeros(3, 32, 3, 3)}, file)
    task = ReconstructionTask(ReconstructionConfig(level=2, encoder="vgg19", lower=str(file)))
    with pytest.raises(WeightsError, match=r"conv1_1\.weight is \(3, 32, 3, 3\)"):
        task.prepare(iter(()))


def test_the_card_names_the_decoder_that_a_run_began_from(data, tmp_path):
    from safetensors.torch import save_file

    from zoo.training.reconstruction import ReconstructionConfig, ReconstructionTask

    (tmp_path / "one").mkdir()
    file = tmp_path / "one/model.safetensors"
    save_file(VGGDecoder(1).state_dict(), file)
    for name, option in (("with", str(file)), ("without", None)):
        task = ReconstructionTask(
            ReconstructionConfig(level=2, encoder="vgg19", lower=option, start="random", whiten=False)
        )
        run({"content": data["content"]}, tmp_path / name, task, steps=1)
    origin = read_metadata(tmp_path / "with/model.safetensors")["started_from"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    assert origin == f"lower one/model.safetensors (sha256 {digest})"
    assert f"| Started from | {origin} |" in (tmp_path / "with/card.md").read_text()
    assert read_metadata(tmp_path / "without/model.safetensors")["started_from"] == "its own start values"


def test_crops_that_the_loss_cannot_compare_are_refused(data, tmp_path):
    from zoo.training.reconstruction import ReconstructionConfig, ReconstructionTask

    task = ReconstructionTask(ReconstructionConfig(level=3, encoder="vgg19"))
    with pytest.raises(ConfigError, match="multiple of 4 pixels, not 18: set --crop to 16 or 20"):
        run({"content": data["content"]}, tmp_path / "run", task, crop=18)
    assert not (tmp_path / "run").exists()


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
            optimizer: torch.optim.Optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
        else:
            optimizer = WhitenedAdam(network, 0.03, measure(network, network, iter([inputs] * 8), count=8))
        for _ in range(150):
            loss = (network(inputs) - target).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
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


def test_a_task_by_its_module_is_trained(folders, tmp_path):
    arguments = [
        "zoo.training.reconstruction:ReconstructionTask", "--set", f"content={folders / 'content'}",
        "--cache-dir", str(folders / "cache"), "--out", str(tmp_path / "run"), "--level", "1", "--steps", "2",
        "--encoder", "vgg19", "--crop", "32", "--batch-size", "2", "--zoom", "0.9,1.1",
        "--held-out-content", str(folders / "style"), "--held-out-size", "exact:48", "--held-out-count", "2",
    ]  # fmt: skip
    assert command.run("train", *arguments) == 0
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["task"]["level"] == 1
    assert record["figures"]["psnr"] > 20


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
    optimizer = WhitenedAdam(task.network, 1e-3, whitening)
    task.loss(batch)["total"].backward()
    optimizer.step()
    changed = {name for name, value in task.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{conv}.{part}" for conv in ("conv2_1", "conv1_2") for part in ("weight", "bias")}
    with pytest.raises(ConfigError, match="no level below"):
        ReconstructionTask(ReconstructionConfig(level=1, upper_only=True))
