"""The machine around a command: encodings, closed streams, no home, folders nobody can write to, mirrors, signals."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import run
from PIL import Image
from report_runs import write_run
from test_trials_numbers import verbs

import zoo
from zoo import weights
from zoo.bench.environment import machine
from zoo.cli import build, streams
from zoo.cli.bench import _print_result
from zoo.cli.common import Reporter, StopRequest
from zoo.cli.streams import complain, console, out
from zoo.download import home, make_folder
from zoo.errors import DownloadRequiredError, WeightsError
from zoo.metrics import load_metric
from zoo.registry import load_registry
from zoo.report.files import write_report
from zoo.report.tables import read_table

ROOT = Path(__file__).resolve().parents[2]
PROC = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that root cannot write to")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder."""
    return write_run(tmp_path_factory.mktemp("run") / "run", pictures=False)


class Stream(io.TextIOWrapper):
    """Standard output of an encoding, as strict as Python's own; of a terminal where asked."""

    def __init__(self, encoding: str, *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", newline="")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        self.flush()
        raw: Any = self.buffer
        return raw.getvalue().decode(self.encoding)


def heard(monkeypatch: pytest.MonkeyPatch, stream: Stream, *arguments: str) -> str:
    """What a command prints to such a stream."""
    monkeypatch.setattr(sys, "stdout", stream)
    assert run(*arguments) == 0
    return stream.text()


# -- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "koi8-r", "utf-8"])
def test_tables_are_printed_in_any_encoding(encoding, finished, monkeypatch):
    """The trial: everything was measured, and then the arrow in the table's head could not be printed."""
    for arguments in (
        ["list"], ["info", "gatys"], ["info", "ssim"], ["data", "list"], ["compare", *[str(finished)] * 2, "--all"],
        ["train", "adain", "--options"], ["--help"],
    ):  # fmt: skip
        text = heard(monkeypatch, Stream(encoding), *arguments)
        assert len(text) > 100
    stream = Stream(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    result: Any = types.SimpleNamespace(count=lambda status: 1, written=1, folder=finished)
    tables = write_report(finished)
    streams.prepare()
    _print_result(result, tables)
    text = stream.text()
    assert ("SSIM \u2191" if encoding == "utf-8" else "SSIM ^") in text
    rows = [line for line in text.splitlines() if line[:1] in "|\u2502"]
    assert len({len(line) for line in rows}) == 2, "columns of each table stay aligned"


def test_every_verb_tells_its_help_in_plain_letters(monkeypatch):
    for words, _ in verbs(build()):
        assert heard(monkeypatch, Stream("ascii"), *words, "-h").isascii()


def test_a_symbol_gives_way_to_one_as_wide():
    for character in map(chr, [*range(0xA0, 0x250), *range(0x2010, 0x2070), *range(0x2190, 0x2200), 0x661F, 0x1F600]):
        if unicodedata.category(character)[0] in "CZ":
            continue
        shown = character.encode("ascii", "zoo.plain").decode()
        wide = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        assert len(shown) == (0 if unicodedata.combining(character) else wide), hex(ord(character))
    assert "\u2191 \u2193 \u00b1 \u00d7 caf\u00e9 \u2013".encode("ascii", "zoo.plain") == b"^ v ~ x cafe -"


def test_text_files_are_read_and_written_in_one_encoding_everywhere():
    """What the system's own encoding is must not matter; files of the Linux kernel are plain."""
    bare = []
    for path in sorted((ROOT / "zoo").rglob("*.py")):
        if path.name in ("memory.py", "supervise.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and "encoding" not in [keyword.arg for keyword in node.keywords]:
                method = isinstance(node.func, ast.Attribute) and node.func.attr in ("read_text", "write_text")
                plain = ast.unparse(node.func) == "open" and "b" not in ast.unparse(node.args[1])
                if method or plain or any(keyword.arg == "text" for keyword in node.keywords):
                    bare.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert bare == []


# -- streams ----------------------------------------------------------------------------------------------------------

SHELL = {
    "a pipe that nobody reads": ("'{python}' -m zoo list --json | true", (0, 1), ""),
    "closed output": ("exec '{python}' -m zoo list >&-", (0,), ""),
    "everything closed": ("exec '{python}' -m zoo info nothing <&- >&- 2>&-", (2,), ""),
    "a full disk": ("exec '{python}' -m zoo list > /dev/full", (2,), "No space left on device"),
    "the locale C": ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 exec '{python}' -m zoo info gatys", (0,), ""),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the devices of Linux")
@pytest.mark.parametrize("case", list(SHELL))
def test_streams_as_shells_leave_them(case):
    line, codes, said = SHELL[case]
    done = subprocess.run(["sh", "-c", line.format(python=sys.executable)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in codes, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == (1 if said else 0), done.stderr


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(5, "Input/output error"), ValueError()])
def test_work_goes_on_where_nobody_hears_its_messages(error, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    monkeypatch.setattr(sys, "stderr", Gone())
    console.say("half way")
    complain("a mistake")
    monkeypatch.setattr(sys, "stdout", Stream("ascii"))
    assert run("info", "nothing") == 2


def test_what_is_closed_is_told_before_the_work(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(streams, "_closed", {"stdin", "stdout"})
    assert run("stylize", "--content", "-", "-m", "adain", "-o", "o.png") == 2
    assert "Standard input is closed: give a file" in capsys.readouterr().err
    assert run("stylize", "-m", "adain", "-o", "-") == 2
    assert "Standard output is closed: give -o a file" in capsys.readouterr().err


@pytest.mark.parametrize("columns", ["20", "0", "1", "-5", "many", "9" * 20])
def test_any_width_that_the_surroundings_claim(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    for terminal in (False, True):
        text = heard(monkeypatch, Stream("utf-8", terminal=terminal), "list")
        assert "texture-nets.zoo" in text, "a name is whole"
        assert heard(monkeypatch, Stream("utf-8", terminal=terminal), "stylize", "-h")


def test_a_message_is_not_folded(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    console.say("a name of many words " * 10)
    out.say("a name of many words " * 10)
    said = capsys.readouterr()
    assert said.err.count("\n") == said.out.count("\n") == 1


def test_what_the_system_refuses_is_one_sentence(monkeypatch, capsys):
    def refuse() -> Any:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("zoo.cli.list.load_registry", refuse)
    assert run("list") == 2
    assert capsys.readouterr().err == "zoo: 'somewhere' failed: No space left on device.\n"


# -- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home folder, as containers have them."""

    def unknown(number: int) -> Any:
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "ZOO_HOME", "TORCH_HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_without_a_home_only_what_must_be_kept_is_refused(nobody, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("data", "list") == 0
    assert run("weights", "list", "--json") == 0
    capsys.readouterr()
    for arguments, variable in (
        (("data", "fetch", "styleid"), "ZOO_HOME"),
        (("weights", "fetch", "lpips"), "TORCH_HOME"),
    ):
        assert run(*arguments) == 2
        said = capsys.readouterr().err
        assert f"(there is no home folder): set {variable} to one that can." in said
        assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == [], "no folder called ~"


@PROC
@pytest.mark.parametrize(
    ("variable", "arguments", "named"),
    [
        ("ZOO_HOME", ("data", "fetch", "styleid"), "ZOO_HOME"),
        ("XDG_CACHE_HOME", ("data", "fetch", "styleid"), "ZOO_HOME"),
        ("TORCH_HOME", ("weights", "fetch", "vgg19.torchvision"), "TORCH_HOME"),
        ("TORCH_HOME", ("weights", "fetch", "inception.fid"), "TORCH_HOME"),
        ("XDG_CACHE_HOME", ("weights", "fetch", "sifid"), "TORCH_HOME"),
    ],
)
def test_a_folder_that_cannot_be_written_is_told_with_its_variable(variable, arguments, named, monkeypatch, capsys):
    for name in ("ZOO_HOME", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/proc/none")
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert f"(from {variable})" in said
    assert said.endswith(f"set {named} to one that can.\n")
    assert said.count("\n") == 1


def test_a_file_in_a_folders_place_and_a_tilde_in_a_variable(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="from ZOO_HOME"):
        make_folder(home() / "checkpoints", "ZOO_HOME", WeightsError)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ZOO_HOME", "~/kept")
    make_folder(home(), "ZOO_HOME", WeightsError)
    assert (tmp_path / "kept").is_dir()


@PROC
def test_exported_networks_need_a_place_too(monkeypatch, capsys, tmp_path):
    """The trial: ZOO_HOME that cannot be made ended in a traceback."""
    monkeypatch.setattr("zoo.export.require", lambda: None)
    monkeypatch.setenv("ZOO_HOME", "/proc/none")
    arguments = ["-m", "johnson", "--style", "swirls", "--content-size", "32", "--backend", "onnxruntime"]
    assert run("stylize", *arguments, "-o", str(tmp_path / "o.png")) == 2
    assert "set ZOO_HOME to one that can" in capsys.readouterr().err
    assert not (tmp_path / "o.png").exists()


def test_no_folder_for_temporary_files(monkeypatch, capsys):
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr("zoo.cli.list.load_registry", tempfile.TemporaryDirectory)
    assert run("list") == 2
    said = "zoo: There is no folder for temporary files: set TMPDIR to one that can be written.\n"
    assert capsys.readouterr().err == said


@PROC
@pytest.mark.parametrize(
    "arguments",
    [
        ("stylize", "-m", "adain"), ("texture",), ("reconstruct", "content"), ("bench", "-m", "adain", "-p", "quick"),
        ("data", "export", "quick", "x"),
        ("train", "adain", "--content-dir", "{here}", "--style-dir", "{here}", "-o", "x"),
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_a_current_folder_that_cannot_be_written(arguments, monkeypatch, capsys, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    monkeypatch.chdir("/proc")
    assert run(*(word.format(here=tmp_path) for word in arguments)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "No such file or directory" in said


def test_a_current_folder_that_is_gone(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run("list") == 2
    assert capsys.readouterr().err == "zoo: The current folder is no longer there: change to another.\n"


# -- hosts ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[set[str]]:
    """Every host that is looked up or connected to; nobody answers. Nothing is on this machine."""
    hosts: set[str] = set()

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        hosts.add(str(host))
        raise socket.gaierror(-2, "Name or service not known")

    for name in ("ZOO_HOME", "TORCH_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return hosts


NETWORKS = [name for name, entry in load_registry().networks.items() if entry.url is not None]
FETCHED = [*NETWORKS, "vgg19.torchvision", "vgg16.torchvision", "timm:resnet18.a1_in1k"]


@pytest.mark.parametrize("name", FETCHED)
def test_a_mirror_is_asked_alone_and_offline_nobody(name, asked, monkeypatch):
    """The trial: torchvision's weights were fetched from the original host although a mirror was set."""
    monkeypatch.setenv("ZOO_MIRROR", "http://mirror.invalid/zoo")
    with pytest.raises(WeightsError, match=r"mirror\.invalid/zoo/.*\(ZOO_MIRROR\)") as caught:
        weights.fetch(name)
    assert "\n" not in str(caught.value)
    assert asked == {"mirror.invalid"}
    asked.clear()
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(DownloadRequiredError, match="ZOO_OFFLINE forbids"):
        weights.fetch(name)
    assert asked == set()


@pytest.mark.parametrize("metric", ["lpips", "sifid", "ssim"])
def test_a_metric_asks_nobody_by_itself(metric, asked):
    with contextlib.suppress(DownloadRequiredError):
        load_metric(metric)
    assert asked == set()


@pytest.mark.parametrize("mirror", ["nonsense", "http://127.0.0.1:99999", "http://[::1", "ftp://", "http://\u00e9 x/"])
def test_a_mirror_that_is_no_address_is_one_sentence(mirror, asked, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_MIRROR", mirror)
    assert run("weights", "fetch", "alexnet.torchvision") == 2
    said = capsys.readouterr().err
    assert "(ZOO_MIRROR)" in said
    assert said.count("\n") == 1


def test_a_mirror_may_be_a_folder(asked, monkeypatch, tmp_path):
    """Of this network neither the size nor the sha256 is known: what the mirror has is taken."""
    place = tmp_path / "mirror" / "matthias-wright/art_inception/resolve/main/art_inception.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 4000)
    monkeypatch.setenv("ZOO_MIRROR", (tmp_path / "mirror").as_uri())
    path = weights.fetch("inception.art")
    assert path.read_bytes() == place.read_bytes()
    assert path.is_relative_to(tmp_path / "TORCH_HOME")
    assert weights.path("inception.art") == path
    assert asked == set()


def test_a_mirror_brings_a_backbone_of_timm(asked, monkeypatch, tmp_path):
    place = tmp_path / "mirror" / "timm/resnet18.a1_in1k/resolve/main"
    place.mkdir(parents=True)
    (place / "pytorch_model.bin").write_bytes(b"\x80weights")
    monkeypatch.setenv("ZOO_MIRROR", (tmp_path / "mirror").as_uri())
    path = weights.fetch("timm:resnet18.a1_in1k")
    assert path.read_bytes() == b"\x80weights"
    assert weights.path("timm:resnet18.a1_in1k") == path


# -- signals ----------------------------------------------------------------------------------------------------------

SMALL = ["--precision", "fp32", "--device", "cpu", "--num-steps", "50", "-q"]
LAYERS = ["--style-layers", "relu1_1", "--style-layer-weights", "1"]
MADE = {
    "stylize": ["-m", "gatys", "--content-size", "32", "--style-size", "32", "--content-layers", "relu1_1", *LAYERS],
    "texture": ["--size", "32", "--style-size", "32", *LAYERS],
    "reconstruct content": ["--layer", "relu1_1", "--size", "32"],
}


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("verb", list(MADE))
def test_a_signal_keeps_the_best_picture(verb, number, monkeypatch, tmp_path):
    steps = []
    begin, step = Reporter.begin, Reporter.__call__

    def began(self: Reporter, label: str) -> None:
        begin(self, label)
        os.kill(os.getpid(), number)

    def told(self: Reporter, *arguments: Any) -> bool:
        steps.append(arguments[0])
        return step(self, *arguments)

    monkeypatch.setattr(Reporter, "begin", began)
    monkeypatch.setattr(Reporter, "__call__", told)
    before = signal.getsignal(number)
    target = tmp_path / "o.png"
    assert run(*verb.split(), *MADE[verb], *SMALL, "-o", str(target)) == 128 + number
    assert len(steps) == 1
    with Image.open(target) as picture:
        assert max(picture.size) == 32
    assert signal.getsignal(number) == before


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_second_signal_interrupts_and_an_ignored_one_is_none():
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        assert stop.code == 143
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        stop = StopRequest()
        with stop.listening():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# -- the machine's own words ------------------------------------------------------------------------------------------


def test_one_core_is_singular(monkeypatch, finished):
    import torch

    monkeypatch.setattr("zoo.bench.environment.usable_cores", lambda: 1)
    assert machine(torch.device("cpu")).endswith(", 1 core")
    text = (finished / "run.json").read_text(encoding="utf-8")
    old = json.loads(text)
    old["conditions"]["machine"] = "Box, 1 cores"
    copy = finished.parent / "old"
    shutil.copytree(finished, copy)
    (copy / "run.json").write_text(json.dumps(old), encoding="utf-8")
    assert "; Box, 1 core; " in read_table(copy).caption
    assert zoo.__version__ in text
