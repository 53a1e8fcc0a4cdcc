"""Image sets: manifests, fetching from a server in this process and from folders, verifying, and the command."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from zoo import shipped
from zoo.cli import main
from zoo.errors import DataError, UnknownNameError
from zoo.imagesets import Manifest, SetImage, fetch_set, list_sets, load_manifest, set_image, state
from zoo.report.bibliography import image_sets

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "photos/dog.jpg": b"a dog" * 400,
    "photos/hill.jpg": b"a hill" * 300,
    "paintings/sea.png": b"the sea" * 200,
}


def manifest_data(**changes: Any) -> dict[str, Any]:
    def images(folder: str) -> list[dict[str, Any]]:
        return [
            {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in FILES.items()
            if name.startswith(folder)
        ]

    data = {
        "schema": 1,
        "name": "tiny",
        "title": "Two photographs and a painting",
        "source": "https://images.invalid/somebody/tiny",
        "commit": COMMIT,
        "base": f"https://images.invalid/somebody/tiny/{COMMIT}/data/",
        "license": "CC0-1.0",
        "contents": images("photos"),
        "styles": images("paintings"),
    }
    return {**data, **changes}


def write_files(folder: Path) -> None:
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """The set's manifest, shipped; nothing of it on the machine."""
    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(yaml.safe_dump(manifest_data()))
    monkeypatch.setattr("zoo.shipped.folder", lambda kind: folder)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    for name in ("ZOO_MIRROR", "ZOO_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return load_manifest("tiny")


@pytest.fixture
def server(tmp_path: Path, tiny: Manifest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A mirror that has the images; yields the paths that were asked of it."""
    asked: list[str] = []
    root = tmp_path / "served"
    write_files(root / "somebody" / "tiny" / COMMIT / "data")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            asked.append(self.path.rsplit("/data/")[-1])

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root))) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        monkeypatch.setenv("ZOO_MIRROR", f"http://127.0.0.1:{serving.server_address[1]}")
        yield asked
        serving.shutdown()
        thread.join()


def run(*arguments: object) -> int:
    try:
        main(["data", *map(str, arguments)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


# --- manifests -------------------------------------------------------------------------------------------------------


SHAPES = {
    "adain": (11, 20),
    "cnnmrf": (4, 4),
    "fast_neural_style": (2, 11),
    "neural_style": (4, 10),
    "style_swap": (7, 9),
    "styleid": (20, 40),
    "texture_nets": (2, 2),
}


@pytest.mark.parametrize(("name", "shape"), SHAPES.items())
def test_the_sets_that_ship(name, shape):
    manifest = load_manifest(name)
    assert (len(manifest.contents), len(manifest.styles)) == shape
    assert all(manifest.commit in manifest.url(image) for image in manifest.images)
    assert list_sets() == list(SHAPES)
    assert shipped.folder("sets").is_dir()


def test_sets_that_share_images_are_told_apart(tiny, tmp_path):
    def named(*contents: SetImage) -> list[str]:
        used = [{"name": image.name, "sha256": image.sha256} for image in contents]
        return image_sets({"protocol": {"resolved": {"contents": used, "styles": []}}})

    other = {"file": "photos/cat.jpg", "bytes": 9, "sha256": "0" * 64}
    dog = manifest_data()["contents"][0]
    twin = manifest_data(name="twin", contents=[dog, other], styles=[{**other, "file": "x.png", "sha256": "1" * 64}])
    (tmp_path / "sets" / "twin.yaml").write_text(yaml.safe_dump(twin))
    cat = load_manifest("twin").contents[1]
    assert named(*tiny.images) == ["tiny"]
    assert named(tiny.contents[0], cat) == ["twin"]
    assert named(*tiny.images, cat) == ["tiny", "twin"]
    assert named(tiny.contents[0]) == ["tiny"]
    assert named() == []


@pytest.mark.parametrize("name", SHAPES)
def test_a_set_is_taken_from_a_folder_of_its_images(name, shared, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    manifest = load_manifest(name)
    assert run("fetch", name, "--from", shared / "images" / "benchmark" / name) == 0
    assert str(tmp_path) in capsys.readouterr().out
    assert {state(manifest, image) for image in manifest.images} == {"whole"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "colour: is not a known key"),
        ({"commit": COMMIT[:-1] + "8"}, "base does not name the commit"),
        ({"base": "http://images.invalid/"}, "base"),
        ({"contents": []}, "contents"),
        ({"styles": manifest_data()["contents"]}, "both a content and a style"),
        ({"contents": manifest_data()["contents"] * 2}, "dog is listed twice"),
        ({"contents": [{**manifest_data()["contents"][0], "file": "../dog.jpg"}]}, "file"),
        ({"contents": [{**manifest_data()["contents"][0], "file": "/dog.jpg"}]}, "file"),
        ({"contents": [{**manifest_data()["contents"][0], "file": "a/.git/dog.jpg"}]}, "file"),
        ({"contents": [{**manifest_data()["contents"][0], "file": "a__b.jpg"}]}, "two underscores"),
        ({"contents": [{**manifest_data()["contents"][0], "sha256": "0"}]}, "sha256"),
    ],
)
def test_a_malformed_manifest_is_one_sentence_that_names_the_place(changes, message, tiny, tmp_path):
    (tmp_path / "sets" / "bad.yaml").write_text(yaml.safe_dump(manifest_data(**changes)))
    with pytest.raises(DataError, match=message) as caught:
        load_manifest("bad")
    assert "\n" not in str(caught.value)


# --- downloads -------------------------------------------------------------------------------------------------------


def test_a_set_is_fetched_once_and_read_only_whole(server, tiny):
    told: list[tuple[int, int]] = []
    with pytest.raises(DataError, match=r"is not on this machine: run 'zoo data fetch tiny'"):
        set_image(tiny, tiny.contents[0])
    assert fetch_set(tiny, progress=lambda done, total: told.append((done, total))) == 3
    assert {image.file: set_image(tiny, image).read_bytes() for image in tiny.images} == FILES
    assert told == sorted(told)
    assert told[-1] == (tiny.bytes, tiny.bytes)
    assert fetch_set(tiny) == 0
    assert len(server) == 3
    left = [path.name for path in tiny.folder.rglob("*") if path.is_file() and path.name != ".lock"]
    assert sorted(left) == ["dog.jpg", "hill.jpg", "sea.png"]


def test_only_what_is_missing_or_damaged_is_fetched_again(server, tiny):
    fetch_set(tiny)
    tiny.path(tiny.contents[0]).unlink()
    with pytest.raises(DataError, match="2 of its 3 images are on this machine"):
        set_image(tiny, tiny.contents[0])
    good = tiny.path(tiny.contents[1]).read_bytes()
    tiny.path(tiny.contents[1]).write_bytes(b"x" + good[1:])
    assert state(tiny, tiny.contents[1]) == "damaged"
    with pytest.raises(DataError, match=r"sha256 differs\): run 'zoo data fetch tiny'"):
        set_image(tiny, tiny.contents[1])
    server.clear()
    assert fetch_set(tiny) == 2
    assert sorted(path.split("/")[-1] for line in server for path in [line]) == ["dog.jpg", "hill.jpg"]


def test_what_came_before_a_failure_is_kept(server, tiny, tmp_path):
    hill = tmp_path / "served" / "somebody" / "tiny" / COMMIT / "data" / "photos" / "hill.jpg"
    data = hill.read_bytes()
    hill.write_bytes(data[::-1])
    with pytest.raises(DataError, match=r"is not the image photos/hill\.jpg of the set tiny \(sha256 differs\)"):
        fetch_set(tiny)
    hill.unlink()
    with pytest.raises(DataError, match=r"The image photos/hill\.jpg of the set tiny cannot be fetched.*404"):
        fetch_set(tiny)
    assert [state(tiny, image) for image in tiny.images] == ["whole", "missing", "missing"]
    hill.write_bytes(data)
    assert fetch_set(tiny) == 2


def test_offline_contacts_nobody(server, tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(DataError, match=r"ZOO_OFFLINE.*--from"):
        fetch_set(tiny)
    assert server == []
    write_files(tmp_path / "folder")
    assert fetch_set(tiny, tmp_path / "folder") == 3
    assert fetch_set(tiny) == 0
    assert server == []


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_of_links_and_two_that_fetch_at_once(tiny, tmp_path):
    write_files(tmp_path / "elsewhere")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "mine")
    with ThreadPoolExecutor(2) as pool:
        fetched = list(pool.map(lambda _: fetch_set(tiny, tmp_path / "mine"), range(2)))
    assert sorted(fetched) == [0, 3]
    assert {state(tiny, image) for image in tiny.images} == {"whole"}


def test_a_folder_may_keep_the_images_anywhere(tiny, tmp_path):
    for number, data in enumerate(FILES.values()):
        (tmp_path / "mine" / str(number)).mkdir(parents=True)
        (tmp_path / "mine" / str(number) / "picture").write_bytes(data)
    assert fetch_set(tiny, tmp_path / "mine") == 3
    assert {image.file: set_image(tiny, image).read_bytes() for image in tiny.images} == FILES


def test_nothing_is_taken_from_a_folder_that_lacks_an_image(tiny, tmp_path):
    folder = tmp_path / "mine"
    write_files(folder)
    (folder / "photos" / "hill.jpg").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of the images of tiny: such as photos/hill\.jpg"):
        fetch_set(tiny, folder)
    (folder / "photos" / "hill.jpg").write_bytes(b"another")
    with pytest.raises(DataError, match=r"photos/hill\.jpg there is another picture"):
        fetch_set(tiny, folder)
    with pytest.raises(DataError, match="is not a folder"):
        fetch_set(tiny, tmp_path / "nowhere")
    assert {state(tiny, image) for image in tiny.images} == {"missing"}


def test_a_place_that_cannot_be_written_is_one_sentence(tiny, tmp_path):
    write_files(tmp_path / "mine")
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="set ZOO_HOME to one that can"):
        fetch_set(tiny, tmp_path / "mine")


def test_a_whole_set_needs_no_place_to_write(tiny, tmp_path, monkeypatch):
    """The trial: a folder that a cluster's users share, which they may read alone."""
    write_files(tmp_path / "mine")
    fetch_set(tiny, tmp_path / "mine")

    def refuse(*_: object) -> None:
        raise DataError("cannot be written to")

    monkeypatch.setattr("zoo.imagesets.make_folder", refuse)
    told: list[tuple[int, int]] = []
    assert fetch_set(tiny, progress=lambda done, total: told.append((done, total))) == 0
    assert told == [(tiny.bytes, tiny.bytes)]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_lists_fetches_and_verifies(tiny, tmp_path, capsys, monkeypatch):
    def told() -> str:
        assert run("list", "--json") == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["name"], row["contents"], row["styles"], row["bytes"]) == ("tiny", 2, 1, tiny.bytes)
        return row["state"]

    write_files(tmp_path / "mine")
    assert told() == "not here"
    assert run("verify") == 0, "a set that nobody fetched is no fault"
    assert run("verify", "tiny") == 1
    assert "tiny: not here" in capsys.readouterr().out
    assert run("fetch", "tiny", "--from", tmp_path / "mine") == 0
    assert str(tiny.folder) in capsys.readouterr().out
    assert told() == "here"
    assert run("verify", "tiny") == 0
    assert "tiny: whole" in capsys.readouterr().out
    tiny.path(tiny.styles[0]).write_bytes(b"torn")
    assert told() == "2 of 3"
    assert run("verify") == 1
    said = capsys.readouterr()
    assert "2 of 3 images whole: run 'zoo data fetch tiny'" in said.out
    assert "sea.png is damaged" in said.err
    assert run("list") == 0
    assert "CC0-1.0" in capsys.readouterr().out


def test_the_commands_mistakes_are_one_line_and_exit_2(tiny, tmp_path, capsys, monkeypatch):
    with pytest.raises(UnknownNameError, match="tiny"):
        load_manifest("tinny")
    for arguments in (("fetch", "tinny"), ("fetch", "tiny", "--from", tmp_path / "nowhere"), ("verify", "tinny")):
        assert run(*arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("zoo: ")
        assert said.count("\n") == 1
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert run("fetch", "tiny") == 2
    assert "ZOO_OFFLINE" in capsys.readouterr().err
