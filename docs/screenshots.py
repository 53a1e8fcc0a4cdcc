"""Take the screenshots of the documentation, of real pages in Chromium: ``python docs/screenshots.py page RUN``.

``page RUN`` takes those of the page that ``zoo report RUN --html`` writes; RUN is a results folder with its pictures:
``page-table.webp`` (light), ``page-pictures.webp`` (light) and ``page-viewer.webp`` (dark), in ``docs/images``.
``serve`` takes that of ``zoo serve``, ``serve.webp``. Needs the package playwright and a Chromium of the system.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

IMAGES = Path(__file__).resolve().parent / "images"
LARGEST = 250_000
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SIZE = {"width": 1280, "height": 800}
# A machine that does much else is slow, not wrong.
_PATIENCE_MS = 180_000


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if executable is None:
        raise SystemExit("No Chromium is installed (Debian: apt-get install chromium).")
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs privileges that containers lack; the pages are ours.
        launched = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield launched
        finally:
            launched.close()


def open_page(chromium: Any, address: str, scheme: str = "light") -> Any:
    """A page of 1280 x 800 in a colour scheme, light or dark."""
    # Without motion a page is where it was told to scroll to at once.
    opened = chromium.new_page(viewport=_SIZE, color_scheme=scheme, reduced_motion="reduce")
    opened.set_default_timeout(_PATIENCE_MS)
    opened.goto(address)
    return opened


def save(page: Any, name: str) -> None:
    """What the window shows as ``docs/images/NAME.webp``, in the best quality that keeps it under 250 kB."""
    with Image.open(io.BytesIO(page.screenshot(timeout=_PATIENCE_MS))) as opened:
        picture = opened.convert("RGB")
    for quality in (85, 75, 65, 50, 40):
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() < LARGEST:
            break
    else:
        raise SystemExit(f"{name}.webp is larger than {LARGEST} bytes in the lowest quality.")
    (IMAGES / f"{name}.webp").write_bytes(buffer.getvalue())
    print(f"{name}.webp: {buffer.tell() / 1000:.0f} kB", flush=True)


def page(run: Path) -> None:
    """The page of a run: its table and chart, its pictures, and two of them under the slider."""
    from zoo.report.page import write_page

    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        address = write_page(run, Path(folder) / "page").as_uri()
        shown = open_page(chromium, address)
        save(shown, "page-table")
        for _ in range(2):
            # Pictures that arrive move what is below them.
            shown.evaluate("document.getElementById('pictures').scrollIntoView()")
            _wait_for_pictures(shown)
        save(shown, "page-pictures")
        shown.close()
        shown = open_page(chromium, address, "dark")
        # Content and style come first in every row: this is the first method's.
        shown.locator("#gallery button").nth(2).click()
        shown.wait_for_selector("#viewer[open]")
        shown.wait_for_function(
            "['left', 'right'].every(side => document.getElementById(`viewer-image-${side}`).naturalWidth > 0)"
        )
        save(shown, "page-viewer")
        shown.close()


def _wait_for_pictures(shown: Any) -> None:
    """Until every picture inside the window is drawn."""
    shown.wait_for_function(
        """[...document.querySelectorAll('#gallery img')].every(image => {
            const box = image.getBoundingClientRect();
            const inside = box.top < innerHeight && box.bottom > 0 && box.left < innerWidth;
            return !inside || (image.complete && image.naturalWidth > 0);
        })"""
    )


def serve() -> None:
    """The page of ``zoo serve`` with the pictures of three methods, at 256 pixels."""
    command = [sys.executable, "-m", "zoo", "serve", "--port", "0", "--no-open"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, browser() as chromium:
        try:
            assert server.stderr is not None
            shown = open_page(chromium, server.stderr.readline().split()[0])
            for name in ("adain", "wct", "johnson (trained styles)"):
                shown.get_by_role("checkbox", name=name).check()
            size = shown.get_by_role("spinbutton", name="Size")
            size.fill("256")
            size.press("Tab")
            shown.wait_for_function("document.querySelector('#trained-list input')?.value === 'swirls'")
            shown.get_by_role("button", name="Stylise").click()
            shown.wait_for_selector("#message :text('3 pictures made.')")
            shown.wait_for_function(
                "[...document.querySelectorAll('#results img')].filter(image => image.naturalWidth > 0).length >= 3"
            )
            shown.set_viewport_size({**_SIZE, "height": 1060})
            shown.evaluate("scrollTo(0, 0)")
            shown.mouse.move(0, 0)
            save(shown, "serve")
        finally:
            server.terminate()


TAKEN = {"page": page, "serve": serve}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TAKEN:
        raise SystemExit(f"Name what to show: {', '.join(TAKEN)}; 'page' takes a results folder as well.")
    TAKEN[sys.argv[1]](*map(Path, sys.argv[2:]))
