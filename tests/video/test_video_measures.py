"""How steady a film is, and the protocol that measures it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from test_video import encode, moving
from torch import Tensor

import zoo
from zoo.bench.plan import Plan, plan_methods
from zoo.bench.protocol import load_protocol, resolve_protocol
from zoo.bench.rows import read_rows
from zoo.bench.run import run
from zoo.bench.workers.films import _Session
from zoo.errors import InputError, ZooError
from zoo.registry import load_registry
from zoo.report.files import write_report
from zoo.report.page import write_page
from zoo.video import measure
from zoo.video.clips import Clip, ClipOptions

pytest.importorskip("cv2", reason="the extra video is not installed")


def grain(frames: list[Tensor], amount: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [(f + amount * torch.randn(f.shape, generator=generator)).clamp(0, 1) for f in frames]


def test_flicker_is_an_error_and_motion_is_none() -> None:
    frames = moving(5, (64, 96))
    along = measure.links(frames)
    own = measure.warping_error(frames, along)
    assert own < 2  # levels of 255
    # A frame that stands still differs along the motion of the film; gray has neither motion nor error.
    assert measure.warping_error([frames[0]] * 5, along) > 3 * own
    assert measure.warping_error([torch.full_like(frames[0], 0.5)] * 5, along) == pytest.approx(0, abs=1e-3)
    weak, strong = (measure.warping_error(grain(frames, amount), along) for amount in (0.05, 0.1))
    assert own < weak < strong
    # Independent grain of deviation s differs by s * sqrt(2), bilinear sampling between pixels apart.
    assert 0.7 * 255 * 0.1 < strong < 1.5 * 255 * 0.1
    single = torch.tensor(measure.errors(frames, along))
    assert float(single.square().mean().sqrt()) == pytest.approx(own)


def test_links_do_not_cross_cuts() -> None:
    first = moving(3, (64, 96))
    second = [1 - frame for frame in moving(3, (64, 96), shift=1)]
    assert [(link.early, link.late) for link in measure.links([*first, *second])] == [(0, 1), (1, 2), (3, 4), (4, 5)]
    assert [(link.early, link.late) for link in measure.links([*first, *second], gap=2)] == [(0, 2), (3, 5)]


def test_colors_tell_the_direction_of_motion() -> None:
    motion = torch.zeros(1, 2, 1, 3)
    motion[0, :, 0, 1] = torch.tensor([4.0, 0.0])
    motion[0, :, 0, 2] = torch.tensor([-4.0, 0.0])
    still, right, left = measure.flow_picture(motion)[0, :, 0].T
    torch.testing.assert_close(still, torch.ones(3))
    torch.testing.assert_close(right, torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(left, torch.tensor([0.0, 1.0, 1.0]), atol=1e-5, rtol=0)


# -- the protocol -----------------------------------------------------------------------------------------------------

TINY = """
schema: 1
name: tiny
contents: [clip.mp4]
styles: [builtin:mosaic]
sizes: [48]
baselines: [content-copy]
film: {frames: 4, keep: [none, warp], long: 2}
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    encode(folder / "clip.mp4", moving(6))
    (folder / "tiny.yaml").write_text(TINY)
    assert run(["johnson"], folder / "tiny.yaml", folder / "run", threads=1).ok
    return folder


def test_films_are_measured(measured: Path) -> None:
    rows = {(row.method, row.metric): row.value for row in read_rows(measured / "run" / "rows.jsonl")}
    lines = ["johnson.zoo[keep=none]", "johnson.zoo[keep=warp]", "content-copy"]
    assert {method for method, _ in rows} == set(lines)
    for method in lines:
        assert rows[method, "film.short"] >= 0
        assert rows[method, "film.gram_loss"] > 0
        assert rows[method, "film.gram_change"] > 0
    assert rows["johnson.zoo[keep=warp]", "film.short"] < rows["johnson.zoo[keep=none]", "film.short"]
    assert rows["johnson.zoo[keep=warp]", "film.trusted"] > 50
    film = next((measured / "run" / "outputs").glob("*warp*.mp4"))
    assert len(list(Clip(film).frames())) == 4


def test_the_content_shown_is_the_frame_whose_result_is(measured: Path) -> None:
    """The trial: a sheet showed a clip's first frame beside results of its last, behind a cut."""
    shown = zoo.read(measured / "run" / "outputs" / "inputs" / "content__clip__48.png").pixels
    frames = [frame.pixels for frame in Clip(measured / "clip.mp4", ClipOptions(size="long:48")).frames()]
    assert [bool((shown - frame).abs().max() < 1 / 255) for frame in frames] == [False] * 3 + [True] + [False] * 2


def test_a_film_is_measured_in_a_process_of_its_own(measured: Path, tmp_path: Path) -> None:
    """The networks that judge one stay in their process, and would count as memory of the next."""
    for name in ("clip", "other"):
        shutil.copy(measured / "clip.mp4", tmp_path / f"{name}.mp4")
    (tmp_path / "two.yaml").write_text(TINY.replace("[clip.mp4]", "[clip.mp4, other.mp4]"))
    registry = load_registry()
    protocol = resolve_protocol(load_protocol(tmp_path / "two.yaml"), tmp_path, registry)
    plan = Plan(protocol, registry, plan_methods(protocol, registry, ["johnson"]))
    assert [len(group) for group in plan.grouped(lambda method, cell: True)] == [1] * 6


def test_a_clip_that_ends_before_the_protocol_does_is_a_failure(measured: Path) -> None:
    """Its numbers would be of fewer frames than the protocol says."""
    film = {"frames": 7, "start": 0, "resize": "long", "clips": {"clip": str(measured / "clip.mp4")}}
    session = _Session({"name": "content-copy", "film": film}, None, 0)
    with pytest.raises(InputError, match="clip has 6 frames from second 0 on, and the protocol takes 7"):
        session.measure({"name": "clip", "size": 48, "output": str(measured / "none.png")})


def test_the_page_plays_films(measured: Path) -> None:
    index = write_page(measured / "run", measured / "page")
    text = index.read_text()
    films = re.findall(r'<video src="(films/[^"]+)"', text)
    strips = re.findall(r'<img src="(films/[^"]+)"', text)
    assert (len(films), len(strips)) == (3, 3)
    assert all((index.parent / unquote(name)).stat().st_size for name in [*films, *strips])
    paths = re.findall(r'<path d="([^"]+)"', text)
    assert len(paths) == 3
    assert all(len(path.split("L")) == 3 for path in paths)


def test_the_tables_of_films_are_of_films(measured: Path) -> None:
    cost, quality = write_report(measured / "run")
    assert [one.text for one in cost.headings][1:] == ["stylize (s) ↓", "peak memory (MiB) ↓", "frames (1/s) ↑"]
    assert [one.text.split(" (")[0] for one in quality.headings][1:4] == ["short-term", "long-term", "style loss"]
    assert not any(row[0].text == "frozen-frame" for group in cost.groups for row in group.rows)


def test_a_run_of_films_goes_on(measured: Path) -> None:
    assert run(["johnson"], measured / "tiny.yaml", measured / "run", threads=1).written == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("contents: [none.mp4]", "there is no film"),
        ("contents: ['builtin:bike']", "bikes"),
        ("baselines: [style-copy]", "style-copy is none of films"),
        ("metrics: [ssim]", "measures of its own"),
        ("film: {frames: 1}", "frames"),
        ("film: {frames: 4, long: 4}", "no two of 4 frames lie 4 apart"),
    ],
)
def test_protocols_of_films_that_cannot_be(tmp_path: Path, line: str, says: str) -> None:
    name = line.partition(":")[0]
    kept = [one for one in TINY.strip().splitlines() if not one.startswith(f"{name}:")]
    encode(tmp_path / "clip.mp4", moving(2))
    (tmp_path / "tiny.yaml").write_text("\n".join([*kept, line]))
    with pytest.raises(ZooError, match=says):
        run(["johnson"], tmp_path / "tiny.yaml", tmp_path / "run")
    assert not (tmp_path / "run").exists()
