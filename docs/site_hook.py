"""What mkdocs.yml cannot say: a page per method in the navigation, the checkpoints' cards, and links to them.

Cards stay beside their weights in zoo/checkpoints. Links and pictures are written so that they work in a checkout; here
they are led to where the site has the same file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "zoo" / "checkpoints"


def on_config(config: MkDocsConfig) -> None:
    """Fill the entry ``Methods`` of the navigation: the index, then the methods by name."""
    names = sorted(path.name for path in Path(config.docs_dir, "methods").glob("*.md") if path.name != "index.md")
    for entry in config.nav or []:
        if isinstance(entry, dict) and "Methods" in entry:
            entry["Methods"] = ["methods/index.md", *(f"methods/{name}" for name in names)]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Take the cards in."""
    for card in sorted(CHECKPOINTS.glob("*.md")):
        files.append(File.generated(config, f"cards/{card.name}", abs_src_path=str(card)))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links out of docs, and out of the cards, to their place in the site."""
    if page.file.src_uri.startswith("cards/"):
        return markdown.replace("](../../docs/", "](../")
    return markdown.replace("](../../zoo/checkpoints/", "](../cards/")
