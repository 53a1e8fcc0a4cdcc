"""Fetching, joining and importing weights; every download is from a server in this process."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from zoo import registry as registry_module
from zoo import weights
from zoo.cli import main
from zoo.download import home, mirrored
from zoo.errors import ConfigError, DownloadRequiredError, WeightsError
from zoo.importers import import_weights, importers, read_source
from zoo.importers.vgg import decoder_entries, encoder_entries, guess_level
from zoo.nn.decoder import VGGDecoder
from zoo.provenance import read_facts, written
from zoo.registry import Asset, Checkpoint, Provenance, load_registry
from zoo.styles import _read_records
from zoo.training import read_metadata
from zoo.weights import read_state

DATA = save({"weight": torch.arange(60_000, dtype=torch.float32)})


class Server(ThreadingHTTPServer):
    """Serves ``content`` at any path; ``cuts`` are the bytes after which answers break off, one number per answer.

    ``etag`` names it unless it is empty, If-Range is heeded unless ``careless``, and ``moved`` is where it leads to.
    """

    def __init__(self) -> None:
        self.content, self.cuts, self.ranges = DATA, [], True
        self.etag, self.careless, self.moved = '"one"', False, ""
        self.asked: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if server.moved:
            self.send_response(302)
            self.send_header("Location", server.moved + self.path)
            self.end_headers()
            return
        if self.headers.get("If-Range") not in (None, server.etag) and not server.careless:
            wanted = None
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if begin and begin >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(server.content) - begin))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(server.content)
        self.wfile.write(server.content[begin : begin + cut])
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    for name in ("ZOO_MIRROR", "ZOO_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("zoo.download.time.sleep", lambda seconds: None)
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def checkpoint(url: str, data: bytes = DATA) -> Checkpoint:
    return Checkpoint(
        summary="Test weights",
        url=url,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        parameters=60_000,
        license="CC0-1.0",
        provenance=Provenance(kind="trained"),
    )


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def run(*arguments: object) -> int:
    try:
        main(["weights", *map(str, arguments)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


# --- fetching --------------------------------------------------------------------------------------------------------


def test_fetched_once_and_whole(server):
    entry, heard = checkpoint(f"{server.url}/a/w.safetensors"), []
    with pytest.raises(DownloadRequiredError, match=r"zoo weights fetch net\.tag"):
        weights.path("net.tag", entry)
    path = weights.fetch("net.tag", entry, lambda done, total: heard.append((done, total)))
    assert path.read_bytes() == DATA
    assert heard[-1] == (len(DATA), len(DATA))
    assert weights.path("net.tag", entry) == path
    assert weights.fetch("net.tag", entry) == path
    assert server.asked == [("/a/w.safetensors", None)]
    assert not part_of(path).exists()


def test_a_broken_download_goes_on_where_it_was(server):
    entry = checkpoint(f"{server.url}/w.safetensors")
    server.cuts = [100_000, 50_000]
    assert weights.fetch("net.tag", entry).read_bytes() == DATA
    assert [asked[1] for asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_killed_process_leaves_what_the_next_one_goes_on_from(server):
    entry = checkpoint(f"{server.url}/w.safetensors")
    path = weights.place("net.tag", entry)
    server.cuts = [70_000, 0]
    with pytest.raises(WeightsError, match="goes on from there"):
        weights.fetch("net.tag", entry)
    assert not path.exists()
    assert part_of(path).read_bytes() == DATA[:70_000]
    assert weights.fetch("net.tag", entry).read_bytes() == DATA
    assert server.asked[-1][1] == "bytes=70000-"


@pytest.fixture
def unknown(server, monkeypatch):
    """A file of which neither size nor hash is known, as of timm's backbones."""
    monkeypatch.setattr("zoo.weights.place", lambda name, asset: home() / "w.safetensors")
    return Asset(summary="Any", url=f"{server.url}/w.safetensors")


def begin(server, entry: Asset, cut: int) -> None:
    """Fetch as many bytes in vain."""
    server.cuts = [cut, 0, 0, 0]
    with pytest.raises(WeightsError, match="cannot be fetched"):
        weights.fetch("net.tag", entry)
    server.asked.clear()
    server.cuts = []


def test_a_process_killed_when_all_had_come_costs_no_further_command(server, unknown):
    begin(server, unknown, 70_000)
    part_of(home() / "w.safetensors").write_bytes(DATA)
    assert weights.fetch("net.tag", unknown).read_bytes() == DATA
    assert [asked[1] for asked in server.asked] == [f"bytes={len(DATA)}-", None]
    assert sorted(path.name for path in home().iterdir() if path.suffix != ".lock") == ["w.safetensors"]


@pytest.mark.parametrize("careless", [False, True])
def test_an_unknown_file_that_is_another_by_now_is_not_gone_on_from(server, unknown, careless):
    begin(server, unknown, 70_000)
    assert weights.fetch("net.tag", unknown).read_bytes() == DATA
    assert [asked[1] for asked in server.asked] == ["bytes=70000-"]
    (home() / "w.safetensors").unlink()

    begin(server, unknown, 70_000)
    server.content, server.etag, server.careless = save({"weight": torch.ones(60_000)}), '"two"', careless
    assert weights.fetch("net.tag", unknown).read_bytes() == server.content
    assert [asked[1] for asked in server.asked] == ["bytes=70000-", None][: 1 + careless]


@pytest.mark.parametrize("etag", ["", 'W/"one"'])
def test_an_unknown_file_that_no_server_can_tell_comes_from_its_beginning(server, unknown, etag):
    server.etag, server.cuts = etag, [70_000] * 4
    with pytest.raises(WeightsError, match=r"70000 of \d+ bytes\.$"):
        weights.fetch("net.tag", unknown)
    assert weights.fetch("net.tag", unknown).read_bytes() == DATA
    assert {asked[1] for asked in server.asked} == {None}


@pytest.mark.parametrize(
    "page", [b"<!DOCTYPE html><title>Log in</title>", b"<script>{}</script>", b'{"error": "log in"}', b""]
)
def test_a_page_in_place_of_an_unknown_file_is_not_kept(server, unknown, page):
    server.content = page
    with pytest.raises(WeightsError, match=r"is no file of weights\): nothing was kept"):
        weights.fetch("net.tag", unknown)
    assert not (home() / "w.safetensors").exists()
    server.content = DATA
    assert weights.fetch("net.tag", unknown).read_bytes() == DATA


@pytest.mark.parametrize("old", [False, True])
def test_unknown_files_of_torch_are_kept(server, unknown, old, tmp_path):
    torch.save({"weight": torch.ones(3)}, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    server.content = (tmp_path / "w.pth").read_bytes()
    assert weights.fetch("net.tag", unknown).read_bytes() == server.content


def test_a_server_without_ranges_starts_over(server):
    entry = checkpoint(f"{server.url}/w.safetensors")
    server.ranges, server.cuts = False, [70_000]
    assert weights.fetch("net.tag", entry).read_bytes() == DATA


def test_another_file_is_not_kept(server):
    entry = checkpoint(f"{server.url}/w.safetensors")
    path = weights.place("net.tag", entry)
    server.content = bytes(len(DATA))
    with pytest.raises(WeightsError, match="sha256"):
        weights.fetch("net.tag", entry)
    server.content = bytes(len(DATA) + 600_000)
    with pytest.raises(WeightsError, match="longer"):
        weights.fetch("net.tag", entry)
    assert not path.exists()
    assert not part_of(path).exists()
    # Half of another file, then the right one: found out at the end, and the next attempt starts clean.
    part_of(path).write_bytes(bytes(10))
    server.content = DATA
    with pytest.raises(WeightsError, match="sha256"):
        weights.fetch("net.tag", entry)
    assert weights.fetch("net.tag", entry).read_bytes() == DATA


def test_a_damaged_file_is_fetched_again(server):
    entry = checkpoint(f"{server.url}/w.safetensors")
    path = weights.fetch("net.tag", entry)
    path.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(WeightsError, match="damaged"):
        weights.path("net.tag", entry)
    assert weights.fetch("net.tag", entry).read_bytes() == DATA


def test_an_absent_file_or_host_is_one_sentence(server):
    entry = checkpoint(f"{server.url}/w.safetensors")
    server.content = b""
    with pytest.raises(WeightsError, match="cannot be fetched"):
        weights.fetch("net.tag", entry)
    nobody = checkpoint("http://127.0.0.1:9/w.safetensors")
    with pytest.raises(WeightsError, match=r"cannot be fetched from http://127.0.0.1:9"):
        weights.fetch("net.tag", nobody)


def test_mirror_and_offline(server, monkeypatch):
    entry = checkpoint("https://weights.invalid/models/w.safetensors?v=1")
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(DownloadRequiredError, match="ZOO_OFFLINE"):
        weights.fetch("net.tag", entry)
    assert server.asked == []
    monkeypatch.setenv("ZOO_OFFLINE", "0")
    monkeypatch.setenv("ZOO_MIRROR", server.url + "/mirror/")
    path = weights.fetch("net.tag", entry)
    assert server.asked == [("/mirror/models/w.safetensors?v=1", None)]
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert weights.fetch("net.tag", entry) == path
    monkeypatch.delenv("ZOO_MIRROR")
    assert mirrored("https://a.b/c") == "https://a.b/c"


def test_a_mirror_leads_to_no_other_host(server, monkeypatch):
    entry = checkpoint("https://weights.invalid/w.safetensors")
    with Server() as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        server.moved = other.url.replace("127.0.0.1", "localhost")
        monkeypatch.setenv("ZOO_MIRROR", server.url)
        with pytest.raises(WeightsError, match="redirects to localhost, and no host but the mirror is asked"):
            weights.fetch("net.tag", entry)
        assert (len(server.asked), other.asked) == (1, [])
        # To another port of its own, and without a mirror to any.
        server.moved = other.url
        assert weights.fetch("net.tag", entry).read_bytes() == DATA
        monkeypatch.delenv("ZOO_MIRROR")
        server.moved = other.url.replace("127.0.0.1", "localhost")
        assert weights.fetch("other.tag", checkpoint(f"{server.url}/w.safetensors")).read_bytes() == DATA
        other.shutdown()


def test_two_at_once_fetch_once(server):
    entry = checkpoint(f"{server.url}/w.safetensors")
    found = []
    threads = [threading.Thread(target=lambda: found.append(weights.fetch("net.tag", entry))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(found) == 3
    assert len(server.asked) == 1


@pytest.fixture
def registered(server, monkeypatch):
    """gatys with a checkpoint that has to be fetched."""
    known = load_registry()
    entry = known.methods["gatys"].model_copy(
        update={"checkpoints": {"net": checkpoint(f"{server.url}/w.safetensors")}}
    )
    changed = registry_module.Registry({**known.methods, "gatys": entry}, known.encoders, known.metrics)
    monkeypatch.setattr(registry_module, "load_registry", lambda: changed)
    monkeypatch.setattr(weights, "load_registry", lambda: changed)
    return server


def test_the_command_fetches_lists_and_verifies(registered, capsys, monkeypatch):
    def state() -> str:
        assert run("list", "--json") == 0
        return next(row["state"] for row in json.loads(capsys.readouterr().out) if row["name"] == "gatys.net")

    assert "zoo weights fetch gatys.net" in state()
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert run("fetch", "gatys.net") == 2
    assert "ZOO_OFFLINE" in capsys.readouterr().err
    monkeypatch.delenv("ZOO_OFFLINE")
    assert run("fetch", "gatys.net") == 0
    assert "gatys.net-" in capsys.readouterr().out
    assert state() == "ready"
    assert run("verify") == 0
    assert "gatys.net: whole" in capsys.readouterr().out
    next(Path(p) for p in checkpoint_files()).write_bytes(b"torn")
    assert run("verify") == 1
    assert run("fetch", "--all") == 0
    assert run("fetch", "gatys.zoo") == 2
    assert "nothing to fetch" in capsys.readouterr().err
    assert run("fetch", "gatsy") == 2
    assert run("fetch") == 2


def checkpoint_files() -> list[Path]:
    return list((home() / "checkpoints").glob("*.safetensors"))


# --- joining ---------------------------------------------------------------------------------------------------------


def trained(path: Path, method: str = "wct", **tensors: torch.Tensor) -> Path:
    """A file as the trainer writes it."""
    facts = {
        "method": method, "paper": "a paper", "teacher": "", "task": {"level": 1},
        "config": {"batch_size": 2, "accumulate": 1}, "started_from": "its own start values", "command": "zoo train",
        "notes": "Made by a test.", "step": 7,
        "data": {"content": {"images": 3, "folders": {"a": 3}, "digest": "0", "skipped": []}}, "hours": 0.5,
        "machine": {"name": "a computer", "threads": 1, "processes": 1, "precision": "fp32", "torch": "2"},
        "loading_share": 0.1, "losses": {"total": 0.25}, "figures": {"psnr": 31.5},
    }  # fmt: skip
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}
    save_file(tensors, path, metadata)
    return path


def test_join_writes_every_part_under_its_name(tmp_path, capsys):
    a = trained(tmp_path / "a.safetensors", weight=torch.tensor([1.0, 2.0]))
    b = trained(tmp_path / "b.safetensors", weight=torch.tensor([3.0]).half())
    out = tmp_path / "all.safetensors"
    assert run("join", out, f"level1={a}", f"level2={b}") == 0
    assert capsys.readouterr().out.split() == [str(out), str(tmp_path / "all.md")]
    state = load_file(out)
    assert {k: (v.dtype, v.tolist()) for k, v in state.items()} == {
        "level1.weight": (torch.float16, [1.0, 2.0]),
        "level2.weight": (torch.float16, [3.0]),
    }
    facts = read_metadata(out)
    assert (facts["method"], facts["hours"], facts["step"]) == ("wct", 1.0, 14)
    assert facts["parts"]["level2"]["figures"] == {"psnr": 31.5}
    assert facts["parts"]["level1"]["sha256"] == hashlib.sha256(a.read_bytes()).hexdigest()
    card = (tmp_path / "all.md").read_text()
    for text in (
        "a computer",
        "Made by a test.",
        "psnr 31.5",
        "## level2",
        "1.00 h in the last runs of all parts",
        "3 (fp16) in 2 parts",
    ):
        assert text in card


def test_join_refuses_what_does_not_belong_together(tmp_path, capsys):
    a = trained(tmp_path / "a.safetensors", weight=torch.ones(2))
    other = trained(tmp_path / "b.safetensors", "adain", weight=torch.ones(2))
    large = trained(tmp_path / "c.safetensors", weight=torch.tensor([1e6]))
    save_file({"weight": torch.ones(1)}, tmp_path / "plain.safetensors")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(a.read_bytes()[:-1])
    out = tmp_path / "all.safetensors"
    for parts, expected in (
        ([f"x={a}", f"y={other}"], "several methods"),
        ([f"x={a}", f"x={a}"], "each name once"),
        ([f"{a}"], "NAME=FILE"),
        ([f"a.b={a}"], "letters and digits"),
        ([f"x={tmp_path / 'plain.safetensors'}"], "which method"),
        ([f"x={tmp_path / 'absent.safetensors'}"], "cannot be read"),
        ([f"x={large}"], "not finite"),
        ([f"x={torn}"], "it is cut short"),
    ):
        assert run("join", out, *parts) == 2
        assert expected in capsys.readouterr().err
    assert run("join", tmp_path / "all.pth", f"x={a}") == 2
    assert {p.name for p in tmp_path.iterdir()} == {
        "a.safetensors",
        "b.safetensors",
        "c.safetensors",
        "plain.safetensors",
        "torn.safetensors",
    }


@pytest.mark.parametrize("place", ["{tmp}", "{tmp}/file/a", "{tmp}/file/b/a", "/proc/none/a"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_bytes(b"")
    target = f"{place.format(tmp=tmp_path)}.safetensors"
    if place == "{tmp}":
        Path(target).mkdir()
    monkeypatch.setattr("zoo.training.join.read_metadata", lambda path: pytest.fail("the work began"))
    monkeypatch.setattr("zoo.importers.read_source", lambda path: pytest.fail("the work began"))
    for command in (("join", target, "x=a.safetensors"), ("import", "wct", "a.pth", "-o", target)):
        assert run(*command) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "cannot be written" in said or "is a folder" in said
    (tmp_path / "card.md").mkdir()
    assert run("join", tmp_path / "card.safetensors", "x=a.safetensors") == 2
    assert "card.md' is a folder" in capsys.readouterr().err


# --- importing -------------------------------------------------------------------------------------------------------


def published(path: Path, level: int, **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """A decoder of ours written as authors write theirs; ``changes`` replace entries, or drop them where None."""
    torch.manual_seed(level)
    network = VGGDecoder(level)
    state = {
        f"{entry}.{kind}": network.state_dict()[f"{name}.{kind}"]
        for entry, name in decoder_entries(level).items()
        for kind in ("weight", "bias")
    }
    state = {k: v for k, v in {**state, **changes}.items() if v is not None}
    torch.save(state, path)
    return network.state_dict()


def test_entries_are_those_of_the_published_sequentials():
    assert decoder_entries(2) == {"1": "conv2_1", "5": "conv1_2", "8": "conv1_1"}
    # decoder.pth of the ports of AdaIN.
    assert list(decoder_entries(4)) == ["1", "5", "8", "11", "14", "18", "21", "25", "28"]
    assert list(encoder_entries().items())[:6] == [
        ("2", "1_1"), ("5", "1_2"), ("9", "2_1"), ("12", "2_2"), ("16", "3_1"), ("19", "3_2")
    ]  # fmt: skip


def test_importers_are_found_by_their_files():
    assert {"wct", "adain"} <= set(importers())
    assert "vgg" not in importers()


def test_wct_levels_become_one_checkpoint(tmp_path, capsys):
    states = {level: published(tmp_path / f"inv{level}.pth", level) for level in (1, 2)}
    out = tmp_path / "wct.safetensors"
    assert run("import", "wct", tmp_path / "inv2.pth", tmp_path / "inv1.pth", "--out", out) == 0
    said = capsys.readouterr()
    assert "level2.conv2_1.weight" in said.err
    assert "--levels 2,1" in said.err
    state = read_state(out)
    for level, expected in states.items():
        for key, value in expected.items():
            assert torch.equal(state.pop(f"level{level}.{key}"), value)
    assert not state
    facts = read_metadata(out)
    assert (facts["method"], facts["provenance"]) == ("wct", "published")
    assert facts["files"]["inv1.pth"] == hashlib.sha256((tmp_path / "inv1.pth").read_bytes()).hexdigest()
    assert run("import", "wct", tmp_path / "inv2.pth", tmp_path / "inv2.pth", "--out", tmp_path / "x.safetensors") == 2
    assert "both of level 2" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["candy"], ["candy", "mosaic"]])
def test_johnson_networks_are_styles_by_file_name(shared, tmp_path, names):
    from zoo.methods.johnson import Johnson

    out = tmp_path / f"{names[0]}.safetensors"
    result = import_weights("johnson", [shared / f"weights/johnson_onnx_zoo/{name}.pth" for name in names], out)
    assert result.fits
    assert Johnson(checkpoint=out, precision="fp32", device="cpu").style_names == tuple(names)


def test_adain_decoder_has_the_methods_own_keys(tmp_path):
    expected = published(tmp_path / "decoder.pth", 4)
    assert import_weights("adain", [tmp_path / "decoder.pth"], tmp_path / "a.safetensors").fits
    state = read_state(tmp_path / "a.safetensors")
    assert all(torch.equal(state[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"5.weight": None}, "level2.conv1_2.weight is missing"),
        ({"7.weight": torch.ones(1)}, "bad.pth: 7.weight is unexpected"),
        ({"8.weight": torch.ones(3, 64, 5, 5)}, "3 x 64 x 5 x 5 instead of 3 x 64 x 3 x 3"),
    ],
)
def test_what_does_not_fit_is_reported_and_not_written(changes, expected, tmp_path, capsys):
    published(tmp_path / "bad.pth", 2, **changes)
    out = tmp_path / "out.safetensors"
    assert run("import", "wct", tmp_path / "bad.pth", "--out", out) == 2
    said = capsys.readouterr().err
    assert expected in said.splitlines()[-1]
    assert "level2.conv2_1.weight" in said  # the table has what fitted, too
    assert not out.exists()


@pytest.mark.parametrize("values", [torch.full((3,), math.nan), torch.zeros(3, dtype=torch.int8)])
def test_values_that_are_no_weights_are_not_written(values, tmp_path, capsys):
    published(tmp_path / "bad.pth", 2, **{"8.bias": values})
    assert run("import", "wct", tmp_path / "bad.pth", "--out", tmp_path / "out.safetensors") == 2
    assert "level2.conv1_1.bias is of values that are no finite weights" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out.safetensors").exists()


def test_tensors_that_share_memory_are_written_as_their_own(tmp_path):
    bias = torch.rand(64)
    published(tmp_path / "tied.pth", 2, **{"1.bias": bias, "5.bias": bias})
    assert run("import", "wct", tmp_path / "tied.pth", "--out", tmp_path / "out.safetensors") == 0
    state = read_state(tmp_path / "out.safetensors")
    assert all(torch.equal(state[f"level2.{name}.bias"], bias) for name in ("conv2_1", "conv1_2"))


def test_two_files_of_one_name_are_not_one_style(tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        torch.save({"x": torch.ones(1)}, tmp_path / folder / "candy.pth")
    given = (tmp_path / "a/candy.pth", tmp_path / "b/candy.pth")
    assert run("import", "johnson", *given, "--out", tmp_path / "out.safetensors") == 2
    assert "Two files are called candy" in capsys.readouterr().err.splitlines()[-1]


def test_a_level_is_recognised_also_where_a_key_is_missing(tmp_path):
    from zoo.importers import read_source

    for level in (1, 2, 3):
        published(tmp_path / "x.pth", level, **({"5.bias": None} if level > 1 else {}))
        assert guess_level(read_source(tmp_path / "x.pth")) == level


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_a_pickle_never_runs_code(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"1.weight": Harmful()}, tmp_path / "evil.pth")
    assert run("import", "wct", tmp_path / "evil.pth", "--out", "x.safetensors") == 2
    said = capsys.readouterr().err
    assert "evil.pth is not a file of plain tensors" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "harmed").exists()
    endless: dict[str, object] = {}
    endless["state_dict"] = endless
    meta, sparse = torch.ones(2, device="meta"), torch.ones(2).to_sparse()
    for content in ([1, 2], {}, {"a": "text"}, endless, {"a": meta}, {"a": sparse}):
        torch.save(content, tmp_path / "other.pth")
        assert run("import", "wct", tmp_path / "other.pth", "--out", "x.safetensors") == 2
        assert "not a dictionary of tensors" in capsys.readouterr().err
    assert run("import", "wct", tmp_path / "absent.pth", "--out", "x.safetensors") == 2
    assert run("import", "wtc", tmp_path / "other.pth", "--out", "x.safetensors") == 2
    assert "did you mean wct" in capsys.readouterr().err
    assert run("import", "wct", tmp_path / "other.pth", "--out", "x.pth") == 2
    assert not list(tmp_path.glob("x.*"))


def authors_encoder(path: Path, scales: dict[str, torch.Tensor], spoil: bool = False) -> None:
    """Our own VGG-19 with other channel scales, laid out as the authors' file."""
    from zoo.encoders import encoder_info, sources

    labels = [label for label in encoder_entries().values() if label in scales]
    ours = sources.read(encoder_info("vgg19.normalised"), labels)
    # RGB in [0, 1] minus the mean: what their first convolution holds in other units.
    state = {"0.weight": torch.eye(3)[:, :, None, None].flip(1) * 255, "0.bias": -255 * torch.tensor(ours.mean).flip(0)}
    before = torch.ones(3)
    for entry, label in encoder_entries().items():
        if label in scales:
            kernel, bias = ours.layers[label]
            kernel = kernel * (scales[label].view(-1, 1, 1, 1) / before.view(1, -1, 1, 1))
            if label == "1_1":
                kernel = kernel.flip(1) / 255
            state[f"{entry}.weight"], state[f"{entry}.bias"] = kernel, bias * scales[label]
            before = scales[label]
    if spoil:
        state["9.weight"] = torch.randn_like(state["9.weight"])
    torch.save(state, path)


def test_an_encoder_rescales_the_first_convolution(tmp_path):
    torch.manual_seed(0)
    scales = {"1_1": torch.rand(64) + 0.5, "1_2": torch.rand(64) + 0.5, "2_1": torch.rand(128) + 0.5}
    authors_encoder(tmp_path / "vgg.pth", scales)
    expected = published(tmp_path / "inv2.pth", 2)
    result = import_weights("wct", [tmp_path / "inv2.pth"], tmp_path / "w.safetensors", encoder=tmp_path / "vgg.pth")
    assert "rescaled" in " ".join(result.notes)
    state = read_state(tmp_path / "w.safetensors")
    # Our features are theirs divided by the scales, so the decoder must multiply by them.
    wanted = expected["conv2_1.weight"] * scales["2_1"].view(1, -1, 1, 1)
    torch.testing.assert_close(state["level2.conv2_1.weight"], wanted, rtol=1e-4, atol=1e-6)
    assert torch.equal(state["level2.conv1_2.weight"], expected["conv1_2.weight"])
    assert "vgg.pth" in read_metadata(tmp_path / "w.safetensors")["encoder"]


def test_another_network_is_no_encoder(tmp_path):
    scales = {"1_1": torch.ones(64), "1_2": torch.ones(64), "2_1": torch.ones(128)}
    authors_encoder(tmp_path / "other.pth", scales, spoil=True)
    published(tmp_path / "inv2.pth", 2)
    with pytest.raises(WeightsError, match="conv2_1 differs"):
        import_weights("wct", [tmp_path / "inv2.pth"], tmp_path / "w.safetensors", encoder=tmp_path / "other.pth")
    authors_encoder(tmp_path / "short.pth", {k: scales[k] for k in ("1_1", "1_2")})
    with pytest.raises(WeightsError, match="not an encoder that reaches conv2_1"):
        import_weights("wct", [tmp_path / "inv2.pth"], tmp_path / "w.safetensors", encoder=tmp_path / "short.pth")
    assert not (tmp_path / "w.safetensors").exists()


def test_a_folder_is_no_checkpoint(tmp_path):
    for read in (read_state, read_facts, read_source):
        with pytest.raises(WeightsError, match=r"cannot be read.*Is a directory") as caught:
            read(tmp_path)
        assert "Errno" not in str(caught.value)


def test_nested_lists_where_facts_should_be_are_one_sentence(tmp_path):
    deep = b"[" * 100_000
    weights, records = tmp_path / "deep.safetensors", tmp_path / "records.json"
    weights.write_bytes(struct.pack("<Q", len(deep)) + deep)
    records.write_bytes(deep)
    with pytest.raises(WeightsError, match="cannot be read as a safetensors file"):
        read_facts(weights)
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        _read_records(str(records))


def test_a_run_recorded_under_older_names_tells_of_itself_under_those_of_now(tmp_path):
    part = {
        "task": {"recolour": 0.1, "colour_weight": 30.0, "styles": [{"name": "colour", "licence": "CC0-1.0"}]},
        "config": {"optimiser": "soap"},
        "losses": {"total": 1.0, "colour": 0.2},
        "command": "zoo train adain --optimiser soap --colour-weight 30 --recolour 0.1 --out colour",
        "data": {"colour": {"images": 3}},
    }
    now = {
        "task": {"recolor": 0.1, "color_weight": 30.0, "styles": [{"name": "colour", "license": "CC0-1.0"}]},
        "config": {"optimizer": "soap"},
        "losses": {"total": 1.0, "color": 0.2},
        "command": "zoo train adain --optimizer soap --color-weight 30 --recolor 0.1 --out colour",
        "data": {"colour": {"images": 3}},
    }
    for facts, expected in ((part, now), ({"parts": {"colour": part}}, {"parts": {"colour": now}})):
        path = tmp_path / "w.safetensors"
        save_file({"w": torch.ones(1)}, path, written(facts))
        assert read_facts(path)[1] == expected
