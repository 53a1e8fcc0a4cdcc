"""``zoo data``: the image sets of published comparisons, and the prepared pictures of a protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from zoo.cli.common import console, out
from zoo.words import counted

data = typer.Typer(help="Image sets of benchmarks: list, fetch, verify, export.", no_args_is_help=True)


@data.command("list")
def list_sets(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the sets with their licences and whether they are on this machine."""
    from zoo import imagesets

    rows = []
    for manifest in map(imagesets.load_manifest, imagesets.list_sets()):
        here, total = imagesets.present(manifest), len(manifest.images)
        rows.append(
            {
                "name": manifest.name,
                "contents": len(manifest.contents),
                "styles": len(manifest.styles),
                "bytes": manifest.bytes,
                "license": manifest.license,
                "source": manifest.source,
                "title": manifest.title,
                "state": "here" if here == total else f"{here} of {total}" if here else "not here",
                "folder": str(manifest.folder),
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table()
    for heading in ("name", "images", "MB", "licence", "what it is", "state"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "name")
    for row in rows:
        images = f"{row['contents']} x {row['styles']}"
        table.add_row(row["name"], images, f"{row['bytes'] / 1e6:.1f}", row["license"], row["title"], row["state"])
    out.show(table)


@data.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="SET", help="A set's name: 'zoo data list' shows all.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Take the images from this folder, nothing is downloaded."),
    ] = None,
) -> None:
    """Bring a set to this machine, every image checked by its sha256; what was broken off goes on.

    ZOO_HOME is the folder that keeps it, ZOO_MIRROR a base URL in place of its host, ZOO_OFFLINE=1 forbids downloads.
    """
    from zoo.imagesets import fetch_set, load_manifest

    manifest = load_manifest(name)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=manifest.bytes)
        fetch_set(manifest, source, lambda done, total: bar.update(task, completed=done, total=total))
    out.say(f"{name}: {manifest.folder}")


@data.command()
def verify(
    name: Annotated[str | None, typer.Argument(metavar="[SET]", help="A set's name. Default: every set.")] = None,
) -> None:
    """Check every image that is here against its sha256; exit 1 if one is damaged, or lacks in a set that is named."""
    from zoo.imagesets import list_sets, load_manifest, state

    bad = False
    for one in [name] if name else list_sets():
        manifest = load_manifest(one)
        states = {image: state(manifest, image) for image in manifest.images}
        for image, found in states.items():
            if found == "damaged":
                console.say(f"{one}: {manifest.path(image)} is damaged.", style="red")
        whole, damaged = (sum(found == kind for found in states.values()) for kind in ("whole", "damaged"))
        bad = bad or damaged > 0 or (name is not None and whole < len(states))
        if whole == len(states):
            text = "whole"
        elif whole or damaged:
            text = f"{whole} of {len(states)} images whole: run 'zoo data fetch {one}'"
        else:
            text = "not here"
        out.say(f"{one}: {text}")
    if bad:
        raise typer.Exit(1)


@data.command()
def export(
    protocol: Annotated[str, typer.Argument(metavar="PROTOCOL", help="A protocol's name or its YAML file.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where contents, styles and the list of pairs go.")],
) -> None:
    """Write the pictures that a protocol gives to methods, for a method that runs elsewhere.

    pairs.csv names the content, the style and the result of every picture that is wanted; a folder of those results is
    scored by 'zoo bench --protocol PROTOCOL --outputs NAME=FOLDER'. Each must have the size of its content.
    """
    from zoo.bench.inputs import LIST, export_inputs
    from zoo.bench.protocol import find_protocol, load_protocol, resolve_protocol
    from zoo.registry import load_registry

    path = find_protocol(protocol)
    lines = export_inputs(resolve_protocol(load_protocol(path), path.parent, load_registry()), folder)
    first = lines[0]
    for text in (
        f"{folder / LIST}: {counted(len(lines), 'picture')} wanted, from the contents and styles beside it.",
        f"The first is {first['result']}, of {first['content']} and {first['style']}.",
    ):
        out.say(text)
