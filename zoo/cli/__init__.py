"""The command line, one file per verb. Nothing here imports torch until a verb needs it."""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from zoo.cli import streams
from zoo.errors import ConfigError, ZooError, out_of_memory
from zoo.extras import explained

# What typer raises for a command line that it cannot read, by whichever version of it: BadParameter is one of them.
_UsageError: type[typer.BadParameter] = typer.BadParameter.__mro__[2]

# A verb, and the function or the group of sub-commands that it is.
_VERBS = {
    "stylize": "zoo.cli.stylize:stylize",
    "texture": "zoo.cli.texture:texture",
    "video": "zoo.cli.video:video",
    "train": "zoo.cli.train:train",
    "recipe": "zoo.cli.recipe:recipe",
    "pack": "zoo.cli.pack:pack",
    "export": "zoo.cli.export:export",
    "bench": "zoo.cli.bench:bench",
    "report": "zoo.cli.report:report",
    "compare": "zoo.cli.report:compare",
    "serve": "zoo.cli.serve:serve",
    "list": "zoo.cli.list:list_names",
    "info": "zoo.cli.info:info",
    "check": "zoo.cli.check:check",
    "doctor": "zoo.cli.doctor:doctor",
    "reconstruct": "zoo.cli.reconstruct:reconstruct",
    "weights": "zoo.cli.weights:app",
    "data": "zoo.cli.data:data",
    "study": "zoo.cli.study:study",
}
# Method options (--num-steps, --style-weight, ...) differ from method to method, so these verbs take what typer does
# not know and hand it to the method's Config, which knows every name, type and range.
_TAKE_MORE = ("stylize", "texture", "video", "train", "recipe", "export")


def build(verbs: Iterable[str] = _VERBS) -> typer.Typer:
    """Return the command line with these verbs: a call needs one, and only help needs them all."""
    built = typer.Typer(
        name="zoo",
        help="Neural style transfer: one command for every method, and one benchmark for all of them.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    built.callback(invoke_without_command=True)(_root)
    for name in verbs:
        module, _, attribute = _VERBS[name].partition(":")
        found: Any = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            built.add_typer(found, name=name)
            continue
        settings = {"allow_extra_args": True, "ignore_unknown_options": True} if name in _TAKE_MORE else {}
        built.command(name, context_settings=settings)(found)
    return built


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


@functools.cache
def _command(verb: str) -> Any:
    """Return the command of ``verb``, or all where it is none, with words in place of the Python types in help."""
    root: Any = typer.main.get_command(build([verb] if verb in _VERBS else _VERBS))
    _name_values(root)
    return root


def _name_values(command: Any) -> None:
    for inner in getattr(command, "commands", {}).values():
        _name_values(inner)
    help_option = command.get_help_option(typer.Context(command, help_option_names=["-h", "--help"]))
    for parameter in [*command.params, help_option]:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None  # its name tells
        elif parameter.metavar is None:
            parameter.metavar = "" if parameter.is_flag else "TEXT"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the ``zoo`` script: a user's mistake is one line on stderr and exit code 2, never a traceback."""
    # torch then asks the system for large blocks in huge pages (Linux): feature maps above 32 MiB are mapped anew for
    # every layer, and page by page that costs as much as a sixth of a forward pass. Read at torch's first allocation.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    streams.prepare()
    try:
        os.getcwd()
    except OSError:  # removed meanwhile: paths lead nowhere, and torch cannot be loaded
        streams.complain("The current folder is no longer there: change to another.")
        raise SystemExit(2) from None
    # Not list(): importing zoo.cli.list has bound that name to the module here.
    arguments = _repeat_lists([_expand_home(argument) for argument in (sys.argv[1:] if argv is None else argv)])
    try:
        _refuse_empty(arguments)
        # A training run records its command, and names the one that goes on with it.
        command = _command(arguments[0] if arguments else "")
        code = command(arguments, prog_name="zoo", obj=arguments, standalone_mode=False)
        sys.stdout.flush()
    except ZooError as error:
        streams.complain(str(error))
        raise SystemExit(2) from None
    except _UsageError as error:
        # Where a group is called alone its help is the message, and typer has printed that already.
        if type(error).__name__ != "NoArgsIsHelpError":
            streams.complain(_usage(error))
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        streams.complain("interrupted.")
        raise SystemExit(130) from None
    except BrokenPipeError:
        streams.silence(sys.stdout)
        raise SystemExit(1) from None
    except Exception as error:
        told = out_of_memory(error) or explained(error) or (_told(error) if isinstance(error, OSError) else None)
        if told is None:
            raise
        streams.silence(sys.stdout)
        streams.complain(told)
        raise SystemExit(2) from None
    raise SystemExit(code or 0)


def _usage(error: Any) -> str:
    """Return one line that says what was wrong with a command line, and where to read what is right."""
    text = " ".join(error.format_message().split()).rstrip(".")
    text += "" if text.endswith("?") else "."
    context = getattr(error, "ctx", None)
    return text if context is None else f"{text} Run '{context.command_path} -h' for help."


def _told(error: OSError) -> str:
    """One sentence for what the system refused and nobody foresaw: a full disk under standard output, say."""
    if "temporary directory" in str(error):
        return "There is no folder for temporary files: set TMPDIR to one that can be written."
    where = f"{error.filename!r}" if error.filename is not None else "Writing or reading"
    return f"{where} failed: {error.strerror or error}."


def _expand_home(argument: str) -> str:
    """``--out=~/x`` and ``NAME=~/x`` with the home folder in place of the tilde, which shells leave behind a ``=``."""
    option, equals, value = argument.partition("=")
    if not equals or "~" not in value:
        return argument
    return option + equals + ",".join(os.path.expanduser(part) for part in value.split(","))


def _refuse_empty(arguments: Sequence[str]) -> None:
    """ConfigError for what a shell leaves of a variable that is not set: as a path it would be the current folder."""
    for before, argument in itertools.pairwise(["", *arguments]):
        option = before if not argument else argument[:-1]
        if (not argument or re.fullmatch("--[^=]+=", argument)) and option != "--notes":
            named = option if option.startswith("-") else "An argument"
            raise ConfigError(f"{named} has no value: give one, or leave it out.")


def _repeat_lists(arguments: list[str]) -> list[str]:
    """``--content a.jpg b.jpg`` as ``--content a.jpg --content b.jpg``, so that shell wildcards work."""
    listed = {"--content", "--style", "--mask"}
    result: list[str] = []
    current: str | None = None
    first = False  # what follows an option is its value, even where a name begins with a dash
    for argument in arguments:
        if argument.startswith("-") and argument != "-" and not first:
            option, equals, _ = argument.partition("=")
            current = option if option in listed else None
            first = current is not None and not equals
        else:
            if current is not None and not first:
                result.append(current)
            first = False
        result.append(argument)
    return result
