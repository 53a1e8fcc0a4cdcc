"""``zoo weights``: which pretrained files are here and whole; fetching, importing and joining them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from zoo.cli.common import console, out
from zoo.errors import ConfigError, ZooError

if TYPE_CHECKING:
    from zoo.importers import ImportReport
    from zoo.registry import Asset

app = typer.Typer(help="List, verify, fetch, import and join weights.", no_args_is_help=True)


@app.command("list")
def list_weights(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List encoders, networks of metrics and checkpoints with their state on this machine."""
    from zoo import weights

    rows = [
        {
            "name": name,
            "kind": kind,
            "bytes": asset.bytes,
            "license": asset.license,
            "state": weights.state(name, asset),
        }
        for name, kind, asset in _listed()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table()
    for heading in ("name", "kind", "MB", "licence", "state"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}"
        table.add_row(row["name"], row["kind"], size, row["license"], row["state"])
    out.show(table)


def _listed() -> list[tuple[str, str, Asset]]:
    """Every file of weights that the registry knows: name, kind, entry."""
    from zoo.registry import load_registry

    registry = load_registry()
    found = [(name, "encoder", asset) for name, asset in registry.encoders.items()]
    found += [(name, "network", asset) for name, asset in registry.networks.items()]
    return found + [
        (f"{method}.{tag}", "checkpoint", checkpoint)
        for method, entry in registry.methods.items()
        for tag, checkpoint in entry.checkpoints.items()
    ]


@app.command()
def verify() -> None:
    """Check every file that is here against its sha256; exit 1 if one is damaged."""
    from zoo import weights
    from zoo.errors import DownloadRequiredError

    bad = 0
    for name, _, asset in _listed():
        try:
            weights.path(name, asset)
            out.say(f"{name}: whole")
        except DownloadRequiredError:
            out.say(f"{name}: not here")
        except ZooError as error:
            bad += 1
            console.say(f"{name}: {error}", style="red")
    if bad:
        raise typer.Exit(1)


@app.command()
def fetch(
    name: Annotated[
        str | None,
        typer.Argument(help="A method, a checkpoint (method.tag), an encoder, a metric, or a network of one."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every checkpoint that is registered.")] = False,
) -> None:
    """Download weights; what was broken off goes on. Only this and 'zoo data fetch' contact other hosts.

    ZOO_HOME is the folder of checkpoints, TORCH_HOME that of encoders and networks, ZOO_MIRROR a base URL in place of
    every host; ZOO_OFFLINE=1 forbids fetching. A metric's name stands for all it reads.
    """
    from zoo.registry import load_registry

    registry = load_registry()
    if (name is None) == (not everything):
        raise ConfigError("Name what to fetch, or give --all.")
    if name is None:
        names = [f"{method}.{tag}" for method, entry in registry.methods.items() for tag in entry.checkpoints]
    else:
        names = [name]
    if name in registry.metrics:
        entry = registry.metrics[name]
        names = [*([entry.encoder] if entry.encoder else []), *entry.needs]
        if not names:
            raise ConfigError(f"The metric {name} reads no weights: there is nothing to fetch.")
    for one in names:
        out.say(f"{one}: {_fetch(one)}")


def _fetch(name: str) -> Path:
    from zoo import weights

    if not console.is_terminal:
        return weights.fetch(name)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(name, total=None)
        return weights.fetch(name, progress=lambda done, total: bar.update(task, completed=done, total=total))


@app.command()
def join(
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, .safetensors.")],
    parts: Annotated[list[str], typer.Argument(metavar="NAME=FILE", help="Prefix of the keys, and the part's file.")],
) -> None:
    """Write several trained checkpoints into one, each part's keys under its name, with a card for all.

    zoo weights join wct.safetensors level1=wct-1/model.safetensors level2=wct-2/model.safetensors ...
    """
    from zoo.training.join import join_checkpoints

    named: dict[str, Path] = {}
    for part in parts:
        name, _, file = part.partition("=")
        if not file or name in named:
            raise ConfigError(f"Parts are given as NAME=FILE, each name once; got {part!r}.")
        named[name] = Path(file)
    _require_safetensors(target)
    for path in join_checkpoints(target, named):
        out.say(str(path))


@app.command("import")
def import_files(
    method: Annotated[str, typer.Argument(help="The method whose weights these are.")],
    files: Annotated[list[Path], typer.Argument(help="The authors' files (torch pickles or safetensors).")],
    target: Annotated[Path, typer.Option("--out", "-o", help="The file to write, .safetensors.")],
    encoder: Annotated[
        Path | None, typer.Option(help="The authors' encoder: the weights are rescaled to read ours.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No report where everything fits.")] = False,
) -> None:
    """Turn weights that a method's authors published into a checkpoint of ours; nothing is written unless they fit.

    The result is used with 'zoo stylize --method METHOD --checkpoint FILE'.
    """
    from zoo.importers import import_weights

    _require_safetensors(target)
    result = import_weights(
        method, files, target, encoder=encoder, report=lambda r: None if quiet and r.fits else _print_report(r)
    )
    for note in result.notes:
        console.say(note)
    out.say(str(target))


def _require_safetensors(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path} must end in .safetensors.")


def _print_report(report: ImportReport) -> None:
    table = Table()
    for heading in ("in the file", "here", "shape", ""):
        table.add_column(heading, overflow="fold")
    for row in report.rows:
        table.add_row(*row, style=None if row[-1] == "mapped" else "red")
    console.show(table)
