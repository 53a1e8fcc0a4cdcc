"""``zoo train``: one method on images of yours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.common import options_table, out, parse_flags
from zoo.cli.training import Display, RunOptions, command, given_arguments, named_first
from zoo.errors import ConfigError
from zoo.options import verb


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """Options of ``zoo train``."""

    method: Annotated[str, typer.Argument(help="A method that can be trained, or module:Class of a training task.")]
    init_from: Annotated[
        Path | None,
        typer.Option("--init-from", help="Start from the weights of a safetensors file, or of a run's checkpoint.pt."),
    ] = None
    list_options: Annotated[bool, typer.Option("--options", help="Print the options of METHOD and of the run.")] = False


@verb
def train(context: typer.Context, options: TrainOptions) -> None:
    """Train a method: zoo train METHOD --content-dir DIR --style-dir DIR --out RUN.

    Every option of the method's loss and of the run is a flag too (--steps, --time-limit, --batch-size, --crop, --lr,
    --precision, ...): 'zoo train METHOD --options' lists them with their defaults. These are the paper's, but for wct,
    whose paper says little of its training (docs/methods/wct.md compares). Ctrl-C, SIGTERM and SIGHUP end a run at a
    checkpoint. Several devices: torchrun --nproc-per-node N -m zoo train METHOD ...
    """
    method, extra = options.method, named_first(context, options.method)
    device = options.prepare()
    from zoo.training.launch import launch, option_specs, task_class

    task = task_class(method)
    own, general = option_specs(task)
    if options.list_options:
        if own:
            out.show(options_table(f"Options of training {method}", own))
        out.show(options_table("Options of the run (--time-limit in minutes)", general))
        return
    given = parse_flags(extra, [*own, *general], f"Run 'zoo train {method} --options' for all.")
    if options.out_dir is None:
        raise ConfigError("Training needs a folder for the run: give --out FOLDER.")
    arguments = given_arguments(context)
    with Display(method, options.quiet, arguments) as display:
        result = launch(
            method,
            task,
            {**device, **given},
            options.material(),
            options.out_dir,
            resume=options.resume,
            init_from=options.init_from,
            command=command(arguments),
            notes=options.notes,
            say=display.say,
            building=display.building,
            progress=display,
        )
        display.ended(result)
        display.going_on(result)
    if result.ended == "asked":
        raise typer.Exit(display.stop.code)
