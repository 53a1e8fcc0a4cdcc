"""Training on other people's machines: schedulers' variables, signals, images and names as they come."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command import run as command
from PIL import Image
from tint_net import installed, write_photos

from zoo.errors import ConfigError
from zoo.training import read_metadata
from zoo.training.processes import Processes, processes
from zoo.training.records import held

Run = Callable[..., int]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with installed(tmp_path_factory.mktemp("plugin")) as folder:
        yield folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def run(plugin: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Exit code of ``zoo train tint-net`` in this process, with the styles and a cache given."""
    monkeypatch.setenv("ZOO_HOME", str(photos / "home"))
    monkeypatch.setattr("zoo.training.export.plot_losses", lambda folder: None)
    monkeypatch.setattr("zoo.training.records._board", lambda *_: None)

    def call(*arguments: Any, content: Path = photos / "content") -> int:
        given = ["--content-dir", content, "--style-dir", photos / "style", "--device", "cpu"]
        return command(*map(str, ["train", "tint-net", *given, *arguments]))

    return call


def losses(folder: Path) -> list[list[str]]:
    with (folder / "losses.csv").open(newline="") as file:
        return list(csv.reader(file))


# -- who trains ------------------------------------------------------------------------------------------------------

TORCHRUN = {
    "RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip
# None of these means that torchrun started several processes.
ALONE = {
    "slurm batch script": {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_PROCID": "0",
                           "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"},
    "slurm terminal": {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "8",
                       "SLURM_PROCID": "x"},
    "open mpi": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "3"},
    "mpich": {"PMI_SIZE": "4", "PMI_RANK": "2", "MPI_LOCALRANKID": "2"},
    "lsf": {"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "4", "LSB_MCPU_HOSTS": "a 2 b 2", "JSM_NAMESPACE_RANK": "1",
            "JSM_NAMESPACE_SIZE": "4", "JSM_NAMESPACE_LOCAL_RANK": "1", "LSB_DJOB_RANKFILE": "/none"},
    "kubernetes": {"KUBERNETES_PORT": "tcp://10.0.0.1:443", "KUBERNETES_SERVICE_HOST": "10.0.0.1", "MASTER_ADDR": "a",
                   "MASTER_PORT": "23456", "WORLD_SIZE": "1", "RANK": "0"},
    "leftovers of torchrun": {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0", "RANK": "1",
                              "LOCAL_RANK": "1", "GROUP_RANK": "0", "ROLE_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
    "torchrun of one": TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0",
                                   "TORCHELASTIC_RUN_ID": "none"},
    "leftovers of fabric": {"LT_CLI_USED": "1", "LT_DEVICES": "2", "LT_ACCELERATOR": "cuda", "LT_NUM_NODES": "2",
                            "LT_STRATEGY": "fsdp", "LT_PRECISION": "16-true", "NODE_RANK": "1"},
    "nothing in them": {"WORLD_SIZE": "", "RANK": "", "LOCAL_RANK": "", "LT_CLI_USED": ""},
    "no numbers": {"RANK": "first", "LOCAL_RANK": "-1", "GROUP_RANK": "x", "LT_CLI_USED": "yes"},
}  # fmt: skip


@pytest.mark.parametrize("case", list(ALONE))
def test_variables_that_are_not_torchruns_change_nothing(
    case: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in ALONE[case].items():
        monkeypatch.setenv(name, value)
    assert run("--out", tmp_path / "run", "--steps", "1") == 0
    assert read_metadata(tmp_path / "run/model.safetensors")["machine"]["processes"] == 1
    assert read_metadata(tmp_path / "run/model.safetensors")["command"].startswith("zoo train tint-net")
    assert {name: os.environ.get(name) for name in ALONE[case]} == ALONE[case]


def test_torchruns_own_variables_are_understood():
    assert processes({}) == Processes()
    assert processes(TORCHRUN) == Processes(1, 4, 1, 2, "10.0.0.1", 29500)
    assert not processes(TORCHRUN).first


# A pod of Kubernetes' PyTorchJob has rank, size and address, and starts no more than one process.
INCOMPLETE = {
    "WORLD_SIZE alone": ({"WORLD_SIZE": "2"}, "RANK and LOCAL_RANK and LOCAL_WORLD_SIZE and MASTER_ADDR"),
    "a pod": ({k: v for k, v in TORCHRUN.items() if "LOCAL" not in k}, "LOCAL_RANK and LOCAL_WORLD_SIZE are not set"),
    "no address": ({k: v for k, v in TORCHRUN.items() if k != "MASTER_ADDR"}, "MASTER_ADDR is not set"),
    "no number": ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two' and not a number"),
    "none": ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
    "huge": ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE is '9"),
    "rank too high": (TORCHRUN | {"RANK": "4"}, "RANK is '4' and not a number from 0 to 3"),
    "no multiple": (TORCHRUN | {"WORLD_SIZE": "5"}, "no multiple of the 2 processes"),
    "port": (TORCHRUN | {"MASTER_PORT": "0"}, "MASTER_PORT is '0'"),
}


@pytest.mark.parametrize("case", list(INCOMPLETE))
def test_several_processes_that_torchrun_did_not_start_are_one_sentence(case: str):
    environment, told = INCOMPLETE[case]
    with pytest.raises(ConfigError, match="torchrun") as caught:
        processes(environment)
    assert told in str(caught.value)


def test_that_sentence_comes_before_anything_is_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("zoo.images.read", lambda *_, **__: pytest.fail("an image was read"))
    assert run("--out", tmp_path / "run", "--cache-dir", tmp_path / "cache") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "unset WORLD_SIZE to train in this process alone" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_in_one_folder_is_one_sentence(run: Run, tmp_path: Path, capsys):
    with held(tmp_path / "run"):
        assert run("--out", tmp_path / "run", "--steps", "1") == 2
        assert "Another process trains into" in capsys.readouterr().err.splitlines()[-1]
    assert run("--out", tmp_path / "run", "--steps", "1") == 0


# -- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_run_at_a_checkpoint(
    number: int, run: Run, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    import zoo_tint_net  # type: ignore[import-not-found]  # of the plugin

    loss, calls = zoo_tint_net.TintTask.loss, iter(range(1000))

    def told(task: Any, batch: Any) -> Any:
        if next(calls) == 2:
            os.kill(os.getpid(), number)
        return loss(task, batch)

    monkeypatch.setattr(zoo_tint_net.TintTask, "loss", told)
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert run("--out", tmp_path / "run", "--steps", "9") == 128 + number
    assert "To go on: zoo train" in capsys.readouterr().err
    assert torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["step"] == 3
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert run("--out", tmp_path / "run", "--resume") == 0
    monkeypatch.undo()
    assert [row[0] for row in losses(tmp_path / "run")] == ["step", *map(str, range(1, 10))]


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_signal_while_images_are_decoded_ends_it_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    from zoo import images

    read = images.read

    def told(*arguments: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return read(*arguments, **named)

    monkeypatch.setattr("zoo.images.read", told)
    assert run("--out", tmp_path / "run", "--cache-dir", tmp_path / "cache") == 128 + signal.SIGTERM
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_real_process_in_a_job_of_a_cluster_trains_alone_and_ends_with_sigterm(
    plugin: Path, photos: Path, tmp_path: Path
):
    """Some variables are read as a library is imported, and only another process tells how it ends."""
    said = {name: value for case in ALONE.values() for name, value in case.items() if name != "WORLD_SIZE"}
    environment = {
        **os.environ, **said, "RANK": "x", "OMP_NUM_THREADS": "1", "ZOO_HOME": str(photos / "home"),
        "PYTHONPATH": f"{plugin}{os.pathsep}{Path(__file__).parents[2]}",
    }  # fmt: skip
    out = tmp_path / "run"
    given = ["train", "tint-net", "--content-dir", photos / "content", "--style-dir", photos / "style", "--out", out]
    given += ["--device", "cpu", "--steps", "100000", "--slow", "0.005"]
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", *map(str, given)], env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (out / "losses.csv").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "Traceback" not in errors
    line = next(line for line in errors.splitlines() if line.startswith("To go on: "))
    assert line.endswith("--resume")
    assert str(out) in line
    assert read_metadata(out / "model.safetensors")["step"] == torch.load(out / "checkpoint.pt")["step"]


# -- images that are the same ----------------------------------------------------------------------------------------


def moved(photos: Path, folder: Path, how: str) -> Path:
    """The photographs, elsewhere or otherwise."""
    new = folder / "photos"
    if how == "a relative path":
        return Path(os.path.relpath(photos))
    if how == "links":
        new.mkdir()
        for path in photos.iterdir():
            (new / path.name).symlink_to(path)
        return new
    if how == "a list":
        new = folder / "photos.txt"
        new.write_text("".join(f"{path}\n" for path in sorted(photos.iterdir())))
        return new
    shutil.copytree(photos, new)
    paths = sorted(new.iterdir())
    if how == "touched":
        for path in paths:
            os.utime(path, (1, 1))
    elif how == "renamed":  # into another order
        for number, path in enumerate(paths):
            path.rename(new / f"{99 - number}.png")
    elif how == "in folders":
        (new / "deep").mkdir()
        for path in paths[::2]:
            path.rename(new / "deep" / path.name)
    elif how == "with one that cannot be read":
        (new / "aa.png").write_bytes(b"\x89PNG nothing")
    elif how == "one pixel":
        with Image.open(paths[0]) as opened:
            opened.load()
        opened.putpixel((0, 0), (1, 2, 3))
        opened.save(paths[0])
    elif how == "one more":
        shutil.copy(paths[0], new / "more.png")
    elif how == "one less":
        paths[0].unlink()
    return new


SAME = (
    "a relative path",
    "links",
    "a list",
    "a copy",
    "touched",
    "renamed",
    "in folders",
    "with one that cannot be read",
)


@pytest.fixture(scope="module")
def begun(plugin: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """A run of four updates, and the losses of one of ten."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(photos / "home"))
        patch.setattr("zoo.training.export.plot_losses", lambda folder: None)
        given = ["--content-dir", photos / "content", "--style-dir", photos / "style", "--device", "cpu"]
        for name, steps in (("run", "4"), ("whole", "10")):
            assert command(*map(str, ["train", "tint-net", *given, "--out", folder / name, "--steps", steps])) == 0
    return folder / "run", losses(folder / "whole")


@pytest.mark.parametrize("how", SAME)
def test_the_same_images_elsewhere_go_on(how: str, run: Run, begun: Any, photos: Path, tmp_path: Path):
    folder, whole = begun
    out = shutil.copytree(folder, tmp_path / "run")
    content = moved(photos / "content", tmp_path, how)
    assert run("--out", out, "--resume", "--steps", "7", content=content) == 0
    # And back again: the run keeps the order in which it counts them.
    assert run("--out", out, "--resume", "--steps", "10") == 0
    assert losses(out) == whole


@pytest.mark.parametrize("how", ["one pixel", "one more", "one less"])
def test_other_images_do_not(how: str, run: Run, begun: Any, photos: Path, tmp_path: Path, capsys):
    out = shutil.copytree(begun[0], tmp_path / "run")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    content = moved(photos / "content", tmp_path, how)
    assert run("--out", out, "--resume", "--steps", "7", content=content) == 2
    assert "begun with other content images" in capsys.readouterr().err.splitlines()[-1]
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


# -- names that are no text ------------------------------------------------------------------------------------------

NAME = os.fsdecode(b"caf\xe9")
ODD = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")


@ODD
def test_names_that_are_no_text_work_to_the_end(run: Run, photos: Path, tmp_path: Path, capsys):
    content = tmp_path / NAME
    shutil.copytree(photos / "content", content)
    (content / f"{NAME}.png").write_bytes((photos / "content/0.png").read_bytes())
    (content / f"{NAME}-torn.png").write_bytes(b"\x89PNG nothing")
    other = shutil.copy(photos / "style/0.png", tmp_path / f"{NAME}.png")
    held_out = ["--held-out-content", other, "--held-out-size", "long:32"]
    cache = ["--cache-dir", tmp_path / f"{NAME}-cache", "--notes", f"Of {NAME}."]
    assert run("--out", tmp_path / "run", "--steps", "1", *held_out, *cache, content=content) == 0
    said = capsys.readouterr().err
    assert r"caf\xe9-torn.png" in said
    facts = read_metadata(tmp_path / "run/model.safetensors")
    assert facts["notes"] == r"Of caf\xe9."
    assert r"caf\xe9" in facts["command"]
    card = (tmp_path / "run/card.md").read_text(encoding="utf-8")
    assert r"caf\xe9" in card
    # What is not named is taken from the run, names and all.
    assert run("--out", tmp_path / "run", "--steps", "2", "--resume", *cache, content=content) == 0


@ODD
@pytest.mark.parametrize("flag", ["--out", "--init-from", "--start"])
def test_weights_whose_name_is_no_text_are_refused_before_the_first_step(
    flag: str, run: Run, begun: Any, tmp_path: Path, capsys
):
    """The library of their format reads no such names."""
    weights = tmp_path / f"{NAME}.safetensors"
    shutil.copy(begun[0] / "model.safetensors", weights)
    out = tmp_path / (NAME if flag == "--out" else "run")
    given = [] if flag == "--out" else [flag, weights]
    assert run("--out", out, *given, "--steps", "1") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("zoo: ")
    assert "UTF-8" in said
    assert not out.exists()
