"""What stands behind the page of ``zoo serve``: orders, figures, visits, sentences, and the server's own errors."""

from __future__ import annotations

import io
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_fakes
import numpy as np
import pytest
import torch
from bench_runs import installed
from command import run
from PIL import Image

from zoo.addresses import address_of, listen
from zoo.apps.serve import words
from zoo.apps.serve.limits import Limits
from zoo.apps.serve.server import private_folder
from zoo.apps.serve.work import Models, Order, Picture, Result, Workshop, hand_back
from zoo.bench.memory import MIB
from zoo.errors import ConfigError, ImageError, InputError, UnknownNameError
from zoo.images import read
from zoo.loading import load

SIZE = 48


def png(width: int = 60, height: int = 48, color: tuple[int, int, int] = (200, 60, 60)) -> bytes:
    """A noisy picture as a file's bytes."""
    rng = np.random.default_rng(width)
    pixels = np.clip(np.array(color) + rng.integers(-50, 50, (height, width, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# Of films alone.
NOWHERE = Path("nowhere")
PHOTO = Picture(png(), "photo.png")
PAINTING = Picture(png(50, 50, (60, 200, 60)), "painting.png")


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed(tmp_path_factory.mktemp("plugins")):
        yield


@pytest.fixture(scope="module")
def workshop(fakes: None) -> Workshop:
    return Workshop(Limits(side=128, steps=50, models=2), ("tint", "stepper", "moody", "adain", "johnson"), "cpu")


def order(*methods: str, **changes: Any) -> Order:
    return Order(PHOTO, PAINTING, methods, **{"size": SIZE, **changes})


def only(workshop: Workshop, *methods: str, **changes: Any) -> Result:
    (result,) = workshop.run(order(*methods, **changes), NOWHERE)
    return result


# -- orders -----------------------------------------------------------------------------------------------------------


def test_a_result_is_what_the_method_makes_of_the_same_pictures(workshop: Workshop):
    result = only(workshop, "tint", strength=0.5)
    content, style = (read(p.source, size=f"long:{SIZE}").pixels for p in (PHOTO, PAINTING))
    expected = load("tint", device="cpu")(content, style, strength=0.5)
    assert result.image is not None
    assert torch.equal(result.image, expected)
    assert result.image.shape[-2:] == (38, SIZE)
    assert 0 < result.seconds_style < result.seconds
    assert result.style == "painting.png"


def test_methods_come_one_after_the_other_and_a_failing_one_does_not_end_the_order(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
):
    results = list(workshop.run(order("tint", "moody", "johnson", "stepper"), NOWHERE))
    assert [r.method for r in results] == ["tint", "moody", "johnson", "stepper"]
    assert [r.image is not None for r in results] == [True, False, False, True]
    # The visitor is told that it failed, the terminal why.
    assert "terminal" in results[1].said
    assert "cannot stand red" in caplog.text
    assert "pick one of them" in results[2].said


def test_steps_are_those_asked_for_or_the_methods_own(workshop: Workshop):
    assert only(workshop, "stepper", steps=3).steps == 3
    assert only(workshop, "stepper").steps == 5


def test_an_optimisation_is_stopped_at_its_next_step_and_the_rest_is_left_out(workshop: Workshop):
    seen: list[int] = []

    def progress(method: str) -> Any:
        return lambda step, total, losses, image: seen.append(step)

    results = list(workshop.run(order("stepper", "tint", steps=50), NOWHERE, progress, lambda: len(seen) >= 3))
    assert seen == [1, 2, 3]
    assert (results[0].steps, results[0].stopped) == (3, True)
    assert results[0].image is not None
    assert results[1].image is None
    assert results[1].said == "Stopped before it began."


def test_luminance_keeps_the_contents_chroma_and_coral_recolours_the_style(workshop: Workshop):
    content = read(PHOTO.source, size=f"long:{SIZE}").pixels
    plain, coral, gray = (only(workshop, "tint", preserve_color=mode).image for mode in ("none", "coral", "luminance"))
    assert plain is not None
    assert coral is not None
    assert gray is not None

    def mean(image: torch.Tensor) -> torch.Tensor:
        return image.mean(dim=(0, 2, 3))

    # Tint moves the mean half way to the style's, which coral has made the content's own.
    assert torch.allclose(mean(coral), mean(content), atol=0.02)
    assert not torch.allclose(mean(plain), mean(content), atol=0.1)
    assert torch.allclose(gray[:, 0] - gray[:, 1], content[:, 0] - content[:, 1], atol=1e-4)


def test_trained_styles_are_named_and_others_refused(workshop: Workshop):
    names = workshop.trained_styles(("tint", "johnson"))
    assert "swirls" in names
    made = only(workshop, "johnson", trained_style="swirls", size=64)
    assert made.image is not None
    assert made.style == "swirls"
    assert "swirls" in only(workshop, "johnson", trained_style="nothing").said
    assert "luminance" in only(workshop, "johnson", trained_style="swirls", preserve_color="coral").said


def test_a_mask_keeps_the_black_part_and_methods_without_masks_say_so(workshop: Workshop):
    half = np.zeros((48, 60), np.uint8)
    half[:, 30:] = 255
    buffer = io.BytesIO()
    Image.fromarray(half).save(buffer, "PNG")
    mask = Picture(buffer.getvalue(), "mask.png")
    asked = {"size": 64, "mask": mask}
    masked, whole, kept = (
        only(workshop, "adain", **options).image for options in (asked, {"size": 64}, {"size": 64, "strength": 0.0})
    )
    assert masked is not None
    assert whole is not None
    assert kept is not None
    # Away from the border, as far as the decoder's field of view reaches.
    left, right = slice(0, 4), slice(60, 64)
    assert (masked - kept)[..., left].abs().mean() < (whole - kept)[..., left].abs().mean() / 2
    assert (masked - whole)[..., right].abs().mean() < (whole - kept)[..., right].abs().mean() / 2
    assert "content masks" in only(workshop, "tint", mask=mask).said


def test_a_mask_of_another_shape_is_refused_and_one_of_alpha_counts(workshop: Workshop):
    shape = read(PHOTO.source, size="long:64").size

    def png(pixels: np.ndarray) -> Picture:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return Picture(buffer.getvalue(), "mask.png")

    with pytest.raises(InputError, match=r"'mask.png' is 7 x 90 pixels and the content"):
        list(workshop.run(order("adain", mask=png(np.full((90, 7), 255, np.uint8))), NOWHERE))
    half = np.zeros(shape, np.uint8)
    half[:, 32:] = 255
    alpha = np.dstack([np.full((*shape, 3), 255, np.uint8), half])
    by_gray, by_alpha = (only(workshop, "adain", size=64, mask=png(pixels)).image for pixels in (half, alpha))
    assert by_gray is not None
    assert by_alpha is not None
    assert torch.equal(by_gray, by_alpha)


@pytest.mark.parametrize(
    ("changes", "words_said"),
    [
        ({"methods": ()}, "pick one or several"),
        ({"size": 129}, "from 16 to 128"),
        ({"size": 8}, "from 16 to 128"),
        ({"steps": 51}, "from 1 to 50"),
        ({"preserve_color": "all"}, "none, luminance, coral"),
        ({"methods": ("tint", "stepper", "tint")}, "picked twice"),
        ({"strength": float("nan")}, "from 0 to 1, got nan"),
        ({"seed": -(2**63) - 1}, "seed must be from -9223372036854775808"),
        ({"seed": 2**64}, "to 18446744073709551615"),
    ],
)
def test_orders_outside_the_limits_are_refused_before_any_work(
    workshop: Workshop, changes: dict[str, Any], words_said: str
):
    asked = Order(**{"content": PHOTO, "style": PAINTING, "methods": ("tint",), "size": SIZE, **changes})
    with pytest.raises(InputError, match=words_said):
        next(workshop.run(asked, NOWHERE))


def test_a_method_that_is_not_offered_cannot_be_ordered(workshop: Workshop):
    with pytest.raises(UnknownNameError):
        next(workshop.run(order("gatys"), NOWHERE))


def test_unreadable_and_large_pictures_are_told_by_their_own_names():
    limits = Limits(pixels=1000, bytes=5000)
    with pytest.raises(ImageError, match=r"^'notes.png' is not an image that the zoo reads"):
        Picture(b"some notes", "notes.png").read("keep", limits)
    with pytest.raises(ImageError, match=r"^'photo.png' has .* MB, above the limit"):
        PHOTO.read("keep", limits)
    with pytest.raises(ImageError, match=r"^'photo.png' announces 60 x 48 pixels, above the limit of 1,000"):
        PHOTO.read("keep", Limits(pixels=1000))


def test_previews_are_small(workshop: Workshop):
    preview = workshop.preview(PHOTO, 32)
    assert preview.size == (26, 32)
    assert preview.source_size == (48, 60)


def test_limits_and_offers_must_make_sense(fakes: None):
    with pytest.raises(ConfigError, match="waiting"):
        Limits(waiting=0)
    with pytest.raises(ConfigError, match="No method"):
        Workshop(patterns=())
    with pytest.raises(ConfigError, match="precision"):
        Workshop(patterns=("tint",), precision="fp8")


def test_only_so_many_models_are_held(fakes: None):
    models = Models(2, "cpu")
    first, seconds = models.get("tint")
    assert seconds > 0
    assert models.get("tint") == (first, 0.0)
    models.get("stepper")
    models.get("tint")
    models.get("stepper", {"num_steps": 7})
    assert len(models) == 2
    # Stepper with its own steps was used longest ago.
    assert models.get("tint")[0] is first
    assert models.get("stepper")[1] > 0


# -- memory -----------------------------------------------------------------------------------------------------------


def test_memory_is_what_the_call_itself_took_every_time(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    if not hand_back():
        pytest.skip("freed memory cannot be handed back here (no glibc)")

    def hoard(self: bench_fakes.Tint, content: torch.Tensor) -> None:
        torch.ones(64 * MIB // 4)

    monkeypatch.setattr(bench_fakes.Tint, "misbehave", hoard)
    list(workshop.run(order("tint"), NOWHERE))
    for _ in range(3):
        result = only(workshop, "tint")
        assert result.memory is not None
        assert result.memory + MIB >= 64 * MIB
        assert result.memory < 80 * MIB


def test_memory_has_a_reason_in_place_of_a_figure_when_something_else_was_read(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    def distract(self: bench_fakes.Tint, content: torch.Tensor) -> None:
        workshop.preview(PHOTO)

    monkeypatch.setattr(bench_fakes.Tint, "misbehave", distract)
    result = only(workshop, "tint")
    assert result.memory is None
    assert "meanwhile" in result.memory_said
    assert "meanwhile" in words.table([result])


def test_memory_has_a_reason_where_freed_memory_stays(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("zoo.apps.serve.work.hand_back", lambda: False)
    result = only(workshop, "tint")
    assert result.memory is None
    assert "freed memory" in result.memory_said


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (0.5, "0.5"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (2e-4, "<0.001")],
)
def test_seconds_have_three_digits(value: float, text: str):
    assert words.seconds(value) == text


def test_captions_and_tables_tell_time_memory_and_reasons():
    image = torch.zeros(1, 3, 4, 4)
    made = Result("gatys", image, style="<b>", seconds=1.5, memory=300 * MIB, steps=12, stopped=True)
    failed = Result("wct", said="needs <32> pixels")
    assert words.caption(made) == "gatys: 1.50 s, 300 MiB, stopped after 12 steps"
    table = words.table([made, failed])
    assert "&lt;b&gt;" in table
    assert "12 (stopped)" in table
    assert "&lt;0.001" in table
    assert "needs &lt;32&gt; pixels" in table
    assert words.done([made, failed]) == "1 picture made, 1 not: the table says why."
    assert "<script" not in words.fault("<script>")
    assert words.table([]) == words.note("") == ""


# -- the server -------------------------------------------------------------------------------------------------------


def test_a_free_port_is_found_and_one_in_use_is_told():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{port}/"
        with pytest.raises(ConfigError, match=f"Port {port} of 127.0.0.1 cannot be used"):
            listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match="0 to 65535"):
        listen("127.0.0.1", 70_000)
    with listen("127.0.0.1", 0) as open_, socket.create_connection(open_.getsockname()):
        accepted, _ = open_.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), "what went away is noticed"
    with listen("0.0.0.0", 0) as everywhere:
        assert address_of(everywhere).startswith("http://127.0.0.1:")


def test_the_private_folder_is_private_and_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    with private_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "file").touch()
    assert not folder.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "before"


def test_without_gradio_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert run("serve", "--port", "0", "--no-open") == 2
    assert "pip install 'style-transfer-zoo[serve]'" in capsys.readouterr().err


def test_a_port_in_use_is_one_sentence_and_exit_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("zoo.apps.serve.server.require", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("serve", "--port", str(port), "--no-open") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"zoo: Port {port} of 127.0.0.1 cannot be used")
    assert error.count("\n") == 1


def test_the_command_warns_of_addresses_that_others_reach(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    given: list[dict[str, Any]] = []

    def serve(**arguments: Any) -> None:
        given.append(arguments)
        arguments["ready"]("http://address/")

    monkeypatch.setattr("zoo.apps.serve.server.serve", serve)
    assert run("serve", "--no-open", "--methods", "adain, wct", "--max-megabytes", "2.5", "--queue", "3") == 0
    assert "no password" not in capsys.readouterr().err
    assert run("serve", "--host", "0.0.0.0", "--quiet") == 0
    error = capsys.readouterr().err
    assert "no password" in error
    assert "http://address/" not in error
    assert given[0]["methods"] == ("adain", "wct")
    assert given[0]["limits"] == Limits(bytes=2_500_000, waiting=3)
    assert (given[0]["host"], given[0]["open_browser"]) == ("127.0.0.1", False)
    assert given[1]["open_browser"] is True
