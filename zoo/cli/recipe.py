"""``zoo recipe``: many training runs, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.table import Table

from zoo.cli.common import out, parse_flags
from zoo.cli.streams import complain
from zoo.cli.training import Display, RunOptions, command, given_arguments, named_first, resuming, split_paths
from zoo.errors import ConfigError
from zoo.options import real, verb


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(RunOptions):
    """Options of ``zoo recipe``."""

    name: Annotated[str, typer.Argument(help="A YAML file of runs, or the name of one that ships: zoo.")]
    hours: Annotated[
        float | None,
        typer.Option(help="Hours for the whole recipe, divided by its shares.", **real(0, 1e6, above=True)),
    ] = None
    only: Annotated[list[str] | None, typer.Option("--only", help="Runs of the recipe, comma-separated.")] = None
    plan: Annotated[bool, typer.Option("--plan", help="Print the recipe's table and train nothing.")] = False


@verb
def recipe(context: typer.Context, options: RecipeOptions) -> None:
    """Train everything that a recipe lists: zoo recipe zoo --hours 10 --content-dir DIR --style-dir DIR --out RUNS.

    Options of every run are flags too (--steps, --batch-size, --precision, ...). Runs that are done are left alone;
    --resume goes on with one that was broken off. Exit code 1 if a run diverged; the others are trained all the same.
    """
    extra = named_first(context, options.name)
    from zoo.config import describe
    from zoo.training.recipe import find_recipe, load_recipe, run_recipe
    from zoo.training.task import TrainConfig

    found = load_recipe(find_recipe(options.name))
    hint = "A recipe takes the options of runs only."
    given = {**options.prepare(), **parse_flags(extra, describe(TrainConfig), hint)}
    only = split_paths(options.only)
    if options.plan:
        table = Table(title=f"{found.name}: {found.description}", title_justify="left")
        for heading in ("run", "method", "share", "minutes", "begins from", "options", "state"):
            table.add_column(heading, overflow="fold")
        for row in found.plan(options.hours, only, options.out_dir, given):
            table.add_row(*row)
        out.show(table)
        return
    if options.out_dir is None:
        raise ConfigError("A recipe needs a folder for its runs: give --out FOLDER.")
    arguments = given_arguments(context)
    with Display(found.name, options.quiet, arguments) as display:
        ended, lost = run_recipe(
            found,
            options.material(),
            options.out_dir,
            hours=options.hours,
            only=only,
            overrides=given,
            resume=options.resume,
            command=command(arguments),
            notes=options.notes,
            display=display,
        )
        if ended == "asked":
            display.say(f"To go on: {resuming(arguments)}")
    for sentence in lost:
        complain(sentence)
    if ended == "asked" or lost:
        raise typer.Exit(display.stop.code if ended == "asked" else 1)
