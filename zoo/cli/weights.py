"""``zoo weights``: which pretrained files are here, whether they are whole, and fetching the ones that are not."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from zoo.cli.common import console, out
from zoo.errors import ZooError

weights = typer.Typer(help="List, verify and fetch pretrained weights.", no_args_is_help=True)


@weights.command("list")
def list_weights(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List encoders and checkpoints with their state on this machine."""
    from zoo.encoders import availability
    from zoo.registry import load_registry
    from zoo.weights import resolve_checkpoint

    registry = load_registry()
    rows: list[dict[str, Any]] = [
        {"name": name, "kind": "encoder", "bytes": entry.bytes, "licence": entry.licence, "state": availability(name)}
        for name, entry in registry.encoders.items()
    ]
    for method, entry in registry.methods.items():
        for tag, checkpoint in entry.checkpoints.items():
            label = f"{method}.{tag}"
            try:
                resolve_checkpoint(label, checkpoint)
                state = "ready"
            except ZooError as error:
                state = str(error)
            size, licence = checkpoint.bytes, checkpoint.licence
            rows.append({"name": label, "kind": "checkpoint", "bytes": size, "licence": licence, "state": state})
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table()
    for heading in ("name", "kind", "MB", "licence", "state"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(row["name"], row["kind"], f"{row['bytes'] / 1e6:.1f}", row["licence"], row["state"])
    out.print(table)


@weights.command()
def verify() -> None:
    """Check every file that is here against its sha256; exit 1 if one is damaged."""
    from zoo.encoders import encoder_file
    from zoo.errors import DownloadRequiredError
    from zoo.registry import load_registry
    from zoo.weights import resolve_checkpoint

    registry, bad = load_registry(), 0
    checks: list[tuple[str, Any]] = [
        (name, lambda name=name: encoder_file(name)) for name, entry in registry.encoders.items() if entry.bundled
    ]
    for method, entry in registry.methods.items():
        for tag, checkpoint in entry.checkpoints.items():
            label = f"{method}.{tag}"
            checks.append((label, lambda label=label, checkpoint=checkpoint: resolve_checkpoint(label, checkpoint)))
    for name, check in checks:
        try:
            check()
            out.print(f"{name}: whole")
        except DownloadRequiredError:
            out.print(f"{name}: not here")
        except ZooError as error:
            bad += 1
            console.print(f"{name}: {error}", style="red")
    if bad:
        raise typer.Exit(1)


@weights.command()
def fetch(name: Annotated[str, typer.Argument(help="An encoder, such as vgg19.torchvision.")]) -> None:
    """Download an encoder's weights into its library's own cache. The only command that contacts another host."""
    from zoo.encoders import fetch as fetch_encoder

    path = fetch_encoder(name)
    out.print(f"{name}: {path}")
