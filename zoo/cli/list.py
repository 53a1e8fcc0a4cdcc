"""``zoo list``: what there is, without importing torch."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from zoo.cli.common import console, out
from zoo.registry import Registry, Resolved, load_registry

_WIDTH = 100  # of a pipe; a terminal has its own


def list_names(
    pattern: Annotated[str, typer.Argument(help="Wildcard over method or method.tag names, such as 'gatys.*'.")] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """List the methods with their presets and checkpoints."""
    registry = load_registry()
    names = registry.match([pattern])
    found = [registry.resolve(label) for name in names for label in _labels(registry, name)]
    if as_json:
        typer.echo(json.dumps([_as_row(r, registry) for r in found], indent=2))
    else:
        table = Table(title="Methods (* is what the bare name means)", title_justify="left", box=None)
        table.add_column("name", no_wrap=True)
        for heading in ("paper", "styles", "what it is"):
            table.add_column(heading)
        previous = ""
        for r in found:
            entry = r.entry
            star = " *" if r.tag == entry.default else ""
            others = " et al." if "," in entry.authors else ""
            paper = f"{entry.authors.partition(',')[0]}{others} {entry.year}" if r.method != previous else ""
            table.add_row(r.label + star, paper, entry.taxonomy.styles, r.summary)
            previous = r.method
        out.show(table, _WIDTH)
    for name, reason in registry.broken:
        console.say(f"zoo: plugin {name!r} is left out: {reason}", style="yellow")


def _labels(registry: Registry, name: str) -> list[str]:
    return [name] if "." in name else [f"{name}.{tag}" for tag in registry.methods[name].tags]


def _as_row(resolved: Resolved, registry: Registry) -> dict[str, object]:
    entry = resolved.entry
    return {
        "name": resolved.label,
        "method": resolved.method,
        "default": resolved.tag == entry.default,
        "title": entry.title,
        "year": entry.year,
        "paper": entry.paper,
        **entry.taxonomy.model_dump(),
        "weights": "trained" if resolved.checkpoint else "none needed",
        "plugin": resolved.method in registry.plugins,
        "summary": resolved.summary,
    }
