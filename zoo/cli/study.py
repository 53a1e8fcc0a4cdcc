"""``zoo study``: people judge a run's pictures without knowing which method made them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.common import console, out, split_labels, split_list, split_pairs
from zoo.extras import need
from zoo.options import COUNT, MILLIMETRES, PORT, SEED, SIDE, real, verb, whole
from zoo.words import counted

study = typer.Typer(help="Make, serve and score a blind study of a run's pictures.", no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class MakeOptions:
    """Options of ``zoo study make``."""

    run: Annotated[Path, typer.Argument(help="Results folder of 'zoo bench', with its pictures.")]
    folder: Annotated[Path, typer.Option("--out", "-o", help="New folder for the page and the key.")]
    questions: Annotated[
        str, typer.Option(help="Comma-separated: content (which keeps it), style (which carries it), prefer.")
    ] = "content,style,prefer"
    choices: Annotated[int, typer.Option(help="Pictures to choose from at a time.", **whole(2, 9))] = 2
    per_judge: Annotated[int, typer.Option(help="Most comparisons that one judge is asked.", **whole(1, 10_000))] = 30
    judges: Annotated[int, typer.Option(help="Judges expected: as many forms are made.", **whole(1, 10_000))] = 20
    checks: Annotated[int, typer.Option(help="Attention checks per judge.", **whole(0, 50))] = 4
    repeats: Annotated[int, typer.Option(help="Comparisons asked twice, per judge.", **whole(0, 50))] = 3
    methods: Annotated[str | None, typer.Option(help="Comma-separated labels. Default: all of the run.")] = None
    pairs: Annotated[str | None, typer.Option(help="CONTENT:STYLE, comma-separated. Default: all.")] = None
    sample: Annotated[int | None, typer.Option(help="So many pairs, drawn.", **COUNT)] = None
    size: Annotated[int | None, typer.Option(help="Size of the pictures. Default: the run's largest.", **SIDE)] = None
    strength: Annotated[float | None, typer.Option(help="Strength of the pictures. Default: 1.", **real(0, 1))] = None
    seed: Annotated[int | None, typer.Option(help="Seed of all that is drawn. Default: a new one.", **SEED)] = None
    lossless: Annotated[bool, typer.Option("--lossless", help="Pictures without loss, about 5 times as large.")] = False


@study.command()
@verb
def make(options: MakeOptions) -> None:
    """Write a page for judges (OUT/send), and the key to it, which stays with you (OUT/key.json).

    The page opens from a disk: send the folder, get a file of answers back. Or show it with 'zoo study serve OUT'.
    """
    need("bench", "jinja2")
    from zoo.apps.study import StudyOptions, make_study

    given = vars(options)
    chosen = StudyOptions(
        **{
            **{name: value for name, value in given.items() if name not in ("run", "folder")},
            "questions": tuple(split_list(options.questions)),
            "methods": tuple(split_labels(options.methods)),
            "pairs": tuple(split_pairs(options.pairs)),
        }
    )
    made = make_study(options.run, options.folder, chosen)
    for sentence in made.said:
        console.say(sentence)
    said = [
        f"{made.page.parent}: send this folder, or run 'zoo study serve {options.folder}'.",
        f"{made.key}: keep this file, it tells which picture is whose.",
        f"{counted(made.forms, 'form')} of up to {counted(made.longest, 'question')}; balance is exact "
        f"after every {counted(made.round, 'judge')}, "
        "each with a form of their own (index.html#form=1, #form=2, ...).",
    ]
    for sentence in said:
        out.say(sentence)


@study.command()
def score(
    answers: Annotated[list[Path], typer.Argument(help="Files of answers, or folders that hold them.")],
    key: Annotated[Path, typer.Option("--key", help="The key.json of the study.")],
    run: Annotated[
        Path | None, typer.Option("--run", help="The study's run: compares its metrics with people.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to. Default: 'scores' beside the key.")
    ] = None,
    formats: Annotated[str, typer.Option("--format", "-f", help="Comma-separated: md, csv, tex, json, html.")] = "all",
    min_right: Annotated[
        float,
        typer.Option(help="Share of attention checks a judge must answer right to count.", **real(0, 1)),
    ] = 0.8,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Count every judge.")] = False,
    width: Annotated[float, typer.Option(help="Width of the figure in mm.", **MILLIMETRES)] = 174.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> None:
    """Scores of the methods with intervals, agreement of the judges, and which metrics choose as people do.

    Files that do not fit the study are named and left out; the exit code is then 1.
    """
    from zoo.apps.study import score_study, write_scores
    from zoo.apps.study.answers import Key, read_answers

    need("bench", "matplotlib")
    from zoo.report.files import FORMATS
    from zoo.report.forms import to_rich

    read = Key.read(key)
    refused: list[str] = []
    found = read_answers(answers, read, refused)
    for sentence in refused:
        console.say(f"Left out: {sentence}")
    scored = score_study(found, read, run, min_right=min_right, keep_all=keep_all)
    chosen = FORMATS if formats == "all" else tuple(split_list(formats))
    written = write_scores(scored, folder or key.parent / "scores", formats=chosen, width_mm=width)
    if not quiet:
        out.show(to_rich(written.table))
        for sentence in (*written.said, f"{counted(len(written.files), 'file')} in {written.folder}"):
            console.say(sentence)
    if refused:
        raise typer.Exit(1)


@study.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="Folder that 'zoo study make' wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", **PORT)] = 8350,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Another name judges reach it by, such as a proxy's. Repeatable."),
    ] = None,
) -> None:
    """Show the page under an address and keep what judges send, in FOLDER/answers, until Ctrl-C."""
    from zoo.addresses import is_local
    from zoo.apps.study.server import make_server

    with make_server(folder, host, port, allow_host or ()) as server:
        for sentence in server.desk.refused:
            console.say(f"Left alone: {sentence}", style="yellow")
        out.say(f"{server.url} shows the study; Ctrl-C ends it.")
        if not is_local(host):
            warning = "Whoever reaches this machine can take part: there is no password and no encryption."
            console.say(warning, style="yellow")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.say(f"{counted(server.desk.judges, 'judge')} in {server.desk.folder}")
