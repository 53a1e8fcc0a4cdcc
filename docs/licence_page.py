"""Write docs/licences.md from registry.yaml, the built-in images and the manifests: ``python docs/licence_page.py``.

With --check nothing is written and the exit code is 1 where the page is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from generated import DOCS, table, write_pages

from zoo.images import builtin_contents, builtin_styles
from zoo.imagesets import list_sets, load_manifest
from zoo.registry import Asset, load_registry

INTRODUCTION = """\
# Licences

The zoo's own code, and the weights that it trained, are under Apache-2.0 (`LICENSE`). What it uses of others has the
licences below, as their sources state them. A licence of code beside weights does not always speak of the weights, nor
of the images that they were trained on; where a source says nothing, this page says so.
"""


def page() -> str:
    """The whole page: encoders, networks of metrics, trained weights, images, sets."""
    registry = load_registry()
    encoders = [
        (f"`{name}`", asset.summary, _source(asset), asset.license, "yes" if asset.bundled else "no")
        for name, asset in registry.encoders.items()
    ]
    networks = [
        (f"`{name}`", asset.summary, _source(asset), asset.license)
        for name, asset in registry.networks.items()
    ]
    weights = [
        (f"[`{name}.{tag}`](methods/{name}.md)", checkpoint.license, checkpoint.provenance.data)
        for name, entry in registry.methods.items()
        if name not in registry.plugins
        for tag, checkpoint in entry.checkpoints.items()
    ]
    images = [
        (f"`builtin:{image.name}`", image.title, image.author, image.license, image.source)
        for image in [*builtin_contents().values(), *builtin_styles().values()]
    ]
    sets = [(f"`{m.name}`", m.title, f"[source]({m.source})", m.license) for m in map(load_manifest, list_sets())]
    parts = [
        INTRODUCTION.strip(),
        "## Encoders",
        "The networks whose features methods and metrics read. One that does not come along is fetched by "
        "`zoo weights fetch NAME`, and only then.",
        table(["encoder", "what it is", "from", "licence", "comes along"], encoders),
        "## Networks of metrics and controls",
        "None comes along; `zoo weights fetch NAME` brings one that has an address, and an extra the packages of the "
        "others.",
        table(["network", "what it is", "from", "licence"], networks),
        "## Weights trained by the project",
        table(["weights", "licence", "training images"], weights),
        "## Built-in images",
        table(["image", "title", "author", "licence", "source"], images),
        "## Sets of images",
        "None comes along; `zoo data fetch NAME` brings one.",
        table(["set", "what it is", "from", "licence"], sets),
    ]
    return "\n\n".join(parts) + "\n"


def _source(asset: Asset) -> str:
    if asset.url is not None:
        return f"[address]({asset.url})"
    return f"package `{asset.install}`" if asset.package else f"`{asset.base}`, scales of the zoo's own"


def pages() -> dict[Path, str]:
    """The page and where it lies."""
    return {DOCS / "licences.md": page()}


if __name__ == "__main__":
    sys.exit(write_pages(pages(), "licence_page.py", __doc__))
