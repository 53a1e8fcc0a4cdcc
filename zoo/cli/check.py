"""``zoo check``: the contract checks on any method, ours or a plugin's."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.table import Table

from zoo.cli.common import out
from zoo.registry import load_registry


def check(
    names: Annotated[list[str], typer.Argument(help="Methods, method.tag names or wildcards; 'all' for every one.")],
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N, mps or auto.")] = "cpu",
    only: Annotated[
        list[str] | None, typer.Option(help="Run only this check; repeat the flag or use a wildcard, 'mix-*'.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object: method, then list of checks.")] = False,
) -> None:
    """Check that methods keep the contract that their traits state; exit 1 if a check fails."""
    methods = load_registry().match(names)
    from zoo.checks import CHECKS, run_checks, select

    chosen = select(only or None)
    failed = False
    report: dict[str, list[dict[str, object]]] = {}
    for method in methods:
        results = run_checks(method, device=device, only=chosen)
        failed = failed or any(r.status == "failed" for r in results)
        if as_json:
            report[method] = [dataclasses.asdict(r) for r in results]
            continue
        table = Table(title=method, title_justify="left")
        for heading in ("check", "what it holds the method to", "outcome", "seconds"):
            table.add_column(heading, overflow="fold", justify="right" if heading == "seconds" else "left")
        colors = {"passed": "green", "failed": "red", "skipped": "dim"}
        for r in results:
            outcome = f"{r.status}: {r.reason}" if r.status == "failed" else r.status
            summary = r.reason if r.status == "skipped" else CHECKS[r.name].summary
            table.add_row(r.name, summary, outcome, f"{r.seconds:.2f}", style=colors[r.status])
        out.show(table)
        counts = {status: sum(r.status == status for r in results) for status in colors}
        out.say(f"{method}: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    if failed:
        raise typer.Exit(1)
