"""The command line, one file per verb. Nothing here imports torch until a verb needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from zoo.cli.bench import bench
from zoo.cli.check import check
from zoo.cli.data import data
from zoo.cli.doctor import doctor
from zoo.cli.export import export
from zoo.cli.info import info
from zoo.cli.list import list_names
from zoo.cli.reconstruct import reconstruct
from zoo.cli.report import compare, report
from zoo.cli.serve import serve
from zoo.cli.study import study
from zoo.cli.stylize import stylize
from zoo.cli.texture import texture
from zoo.cli.train import train
from zoo.cli.weights import weights
from zoo.errors import ZooError

app = typer.Typer(
    name="zoo",
    help="Neural style transfer: one command for every method, and one benchmark for all of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Method options (--num-steps, --style-weight, ...) differ from method to method, so these verbs take what typer does
# not know and hand it to the method's Config, which knows every name, type and range.
_WITH_METHOD_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}

app.command("stylize", context_settings=_WITH_METHOD_OPTIONS)(stylize)
app.command("texture", context_settings=_WITH_METHOD_OPTIONS)(texture)
app.command("train", context_settings=_WITH_METHOD_OPTIONS)(train)
app.command("export", context_settings=_WITH_METHOD_OPTIONS)(export)
app.command("bench")(bench)
app.command("report")(report)
app.command("compare")(compare)
app.command("serve")(serve)
app.command("list")(list_names)
app.command("info")(info)
app.command("check")(check)
app.command("doctor")(doctor)
app.add_typer(reconstruct, name="reconstruct")
app.add_typer(weights, name="weights")
app.add_typer(data, name="data")
app.add_typer(study, name="study")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        from zoo import __version__

        typer.echo(f"zoo {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the ``zoo`` script: a user's mistake is one line on stderr and exit code 2, never a traceback."""
    # torch then asks the system for large blocks in huge pages (Linux): feature maps above 32 MiB are mapped anew for
    # every layer, and page by page that costs as much as a sixth of a forward pass. Read at torch's first allocation.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # Not list(): importing zoo.cli.list has bound that name to the module here.
    arguments = _repeat_lists([*(sys.argv[1:] if argv is None else argv)])
    try:
        # A training run records its command, and names the one that goes on with it.
        app(arguments, prog_name="zoo", obj=arguments)
    except ZooError as error:
        print(f"zoo: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("zoo: interrupted.", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(1) from None


def _repeat_lists(arguments: list[str]) -> list[str]:
    """``--content a.jpg b.jpg`` as ``--content a.jpg --content b.jpg``, so that shell wildcards work."""
    listed = {"--content", "--style", "--mask"}
    result: list[str] = []
    current: str | None = None
    for argument in arguments:
        if argument.startswith("-") and argument != "-":
            current = argument if argument in listed else None
        elif current is not None and result and result[-1] != current:
            result.append(current)
        result.append(argument)
    return result
