"""``zoo info NAME``: one method, encoder or metric in full, without importing torch (but for trained styles' names)."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer
from rich.table import Table

from zoo.cli.common import options_table, out
from zoo.errors import UnknownNameError
from zoo.registry import Registry, Resolved, load_registry


def info(
    name: Annotated[str, typer.Argument(help="A method, method.tag, encoder or metric.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show a method's paper, presets, checkpoints and options; or an encoder, or a metric."""
    registry = load_registry()
    if name in registry.encoders:
        _show({"encoder": name, **registry.encoders[name].model_dump()}, as_json)
        return
    if name in registry.metrics:
        _show({"metric": name, **registry.metrics[name].model_dump(by_alias=True)}, as_json)
        return
    known = [*registry.methods, *registry.encoders, *registry.metrics]
    if name.partition(".")[0] not in [*registry.methods, *dict(registry.broken)]:
        raise UnknownNameError("name", name, known, "Run 'zoo list' for the methods.")
    resolved = registry.resolve(name)
    if as_json:
        typer.echo(json.dumps(_method(resolved, registry), indent=2))
    else:
        _print_method(resolved, registry)


def _show(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(fields, indent=2))
        return
    table = Table(show_header=False, box=None)
    for key, value in fields.items():
        table.add_row(key, str(value))
    out.show(table)


def _method(resolved: Resolved, registry: Registry) -> dict[str, Any]:
    entry = resolved.entry
    return {
        "name": resolved.label,
        "default": resolved.tag == entry.default,
        "summary": resolved.summary,
        **entry.model_dump(by_alias=True, exclude={"presets", "checkpoints", "default"}),
        "plugin": resolved.method in registry.plugins,
        "presets": {tag: preset.model_dump() for tag, preset in entry.presets.items()},
        "checkpoints": {tag: checkpoint.model_dump() for tag, checkpoint in entry.checkpoints.items()},
        "trained_styles": _trained_styles(resolved),
        "options": [{**dataclasses.asdict(s), "flag": s.flag} for s in registry.options(resolved.label)],
    }


def _trained_styles(resolved: Resolved) -> list[dict[str, str]]:
    """Return the records of the styles that a method's weights hold; none where it takes any or lacks them."""
    if resolved.entry.taxonomy.styles == "any" or resolved.checkpoint is None:
        return []
    from zoo.errors import DownloadRequiredError
    from zoo.styles import find_styles, read_metadata
    from zoo.weights import path as file_of

    try:
        path = file_of(resolved.weights, resolved.checkpoint)
    except DownloadRequiredError:
        return []
    facts = read_metadata(path)
    return [style.to_dict() for style in find_styles(facts, list(facts.get("parts", ())) or None).values()]


def _print_method(resolved: Resolved, registry: Registry) -> None:
    entry, kind = resolved.entry, resolved.entry.taxonomy
    out.say(f"{resolved.label}: {entry.title} ({entry.authors}, {entry.year})", style="bold")
    out.say(entry.paper)
    out.say(resolved.summary)
    out.say(f"optimizes: {kind.optimizes}   styles: {kind.styles}   statistics: {kind.statistics}")
    if entry.encoder:
        out.say(f"encoder: {entry.encoder}")
    tags = Table(title="Presets and checkpoints (* is the default)", title_justify="left")
    tags.add_column("name", no_wrap=True)
    tags.add_column("what it is")
    tags.add_column("weights")
    for tag in entry.tags:
        other = registry.resolve(f"{resolved.method}.{tag}")
        star = " *" if tag == entry.default else ""
        weights = "none needed"
        if other.checkpoint is not None:
            weights = f"{(other.checkpoint.bytes or 0) / 1e6:.1f} MB, {other.checkpoint.license}"
        tags.add_row(other.label + star, other.summary, weights)
    out.show(tags)
    out.show(options_table(f"Options of {resolved.label}", registry.options(resolved.label)))
    styles = _trained_styles(resolved)
    if styles:
        table = Table(title="Trained styles", title_justify="left")
        for heading in ("name", "what it is", "licence", "source"):
            table.add_column(heading, overflow="fold")
        for style in styles:
            what = ", ".join(style[key] for key in ("title", "artist", "year") if style[key])
            table.add_row(style["name"], what, style["license"], style["source"])
        out.show(table)
