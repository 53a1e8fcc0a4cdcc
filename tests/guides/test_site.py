"""The documentation site builds without a warning, fetches nothing, and its generated pages are up to date."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import yaml

from zoo.registry import load_registry

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("script", ["method_pages.py", "protocol_pages.py", "licence_page.py"])
def test_generated_pages_are_up_to_date(script: str) -> None:
    done = forked.run([sys.executable, DOCS / script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_method_has_a_page_with_its_deviations_options_and_weights() -> None:
    registry = load_registry()
    methods = {name: entry for name, entry in registry.methods.items() if name not in registry.plugins}
    pages = {path.stem for path in (DOCS / "methods").glob("*.md")}
    assert {name for name in pages if not name.startswith("gallery-")} == {"index", *methods}
    galleries = [path.read_text(encoding="utf-8") for path in (DOCS / "methods").glob("gallery-*.md")]
    assert all(sum(f"\n## {name}\n" in text for text in galleries) == 1 for name in methods)
    for name, entry in methods.items():
        text = (DOCS / "methods" / f"{name}.md").read_text(encoding="utf-8")
        for said in (entry.title, entry.paper, entry.bibtex.split("\n")[0], *(f"`{name}.{tag}`" for tag in entry.tags)):
            assert said in text, (name, said)
        for spec in registry.options(name):
            assert f"| `{spec.flag}` |" in text
        for checkpoint in entry.checkpoints.values():
            assert checkpoint.sha256 in text
        # The table of deviations: the paper's way, the way here, and why.
        assert re.search(r"^\| (paper|preset)[^|]*\|.*\|$", text, re.MULTILINE), name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("material") is None:
        pytest.skip("MkDocs Material is not installed: pip install 'style-transfer-zoo[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_has_every_page_of_the_navigation(site: Path) -> None:
    def paths(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [path for value in values for path in paths(value)]  # type: ignore[attr-defined]

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    for path in [*paths(nav), *(f"methods/{path.name}" for path in (DOCS / "methods").glob("*.md"))]:
        assert (site / path).with_suffix(".html").is_file(), path
    assert (site / "cards" / "adain.html").is_file()
    assert not list(site.rglob("*.py"))


def test_tables_and_pictures_are_rendered(site: Path) -> None:
    page = (site / "methods" / "adain.html").read_text(encoding="utf-8")
    assert "<td>pooling in ceil mode</td>" in page
    assert 'href="../cards/adain.html"' in page
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for source in re.findall(r'<img[^>]+src="([^"]+)"', text):
            assert (path.parent / source).is_file(), (path, source)
        # A row of a table, or a fence, that Markdown did not take for one.
        body = re.sub(r"<(pre|code)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r"^<p>\||^\|.*\|$|```", body, re.MULTILINE), path


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+|//[^"]+)"', text)
        fetched += re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect|icon)"[^>]*href="(https?:[^"]+)"', text)
        fetched += re.findall(r'<link[^>]+href="(https?:[^"]+)"[^>]+rel="(?:stylesheet|preconnect)"', text)
        assert not fetched, (path, fetched)
