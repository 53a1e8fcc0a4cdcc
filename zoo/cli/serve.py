"""``zoo serve``: the zoo as a page in the browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from zoo.cli.common import console, split_list
from zoo.options import COUNT, PIXELS, PORT, Quiet, real, verb, whole


@dataclass(frozen=True, kw_only=True)
class ServeOptions(Quiet):
    """Options of ``zoo serve``."""

    host: Annotated[str, typer.Option(help="Address to listen on. Default: this machine alone.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any free one.", **PORT)] = 7860
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Another name visitors reach it by, such as a proxy's. Repeatable."),
    ] = None
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the browser.")] = False
    methods: Annotated[
        str, typer.Option(help="Methods to offer: names, comma-separated, or wildcards, as 'zoo bench' takes them.")
    ] = "all"
    max_size: Annotated[int, typer.Option(help="Longest side of a result, in pixels.", **whole(64, 65_500))] = 1024
    max_pixels: Annotated[int, typer.Option(help="Refuse uploads with more pixels.", **PIXELS)] = 25_000_000
    max_megabytes: Annotated[float, typer.Option(help="Refuse larger uploads.", **real(0.001, 1e6))] = 20.0
    max_steps: Annotated[int, typer.Option(help="Most steps of an optimisation.", **COUNT)] = 1000
    max_frames: Annotated[int, typer.Option(help="Most frames of a film.", **COUNT)] = 150
    queue: Annotated[
        int, typer.Option(help="Orders in work and waiting; one is worked on at a time.", **whole(1, 10_000))
    ] = 64
    pages: Annotated[int, typer.Option(help="Pages open at once.", **whole(1, 10_000))] = 64
    keep_models: Annotated[int, typer.Option(help="Methods held in memory.", **whole(1, 1000))] = 4
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto"
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto"


@verb
def serve(options: ServeOptions) -> None:
    """Open a page where photographs are stylised by several methods side by side, until Ctrl-C.

    Uploads and results are deleted when they are replaced, when the page is closed, and at the end; nothing is sent
    anywhere. Needs the extra serve.
    """
    from zoo.addresses import is_local
    from zoo.apps.serve.limits import Limits
    from zoo.apps.serve.server import serve as run

    limits = Limits(
        side=options.max_size,
        pixels=options.max_pixels,
        bytes=int(options.max_megabytes * 1e6),
        steps=options.max_steps,
        frames=options.max_frames,
        waiting=options.queue,
        visitors=options.pages,
        models=options.keep_models,
    )

    def ready(address: str) -> None:
        if not options.quiet:
            console.say(f"{address}  (Ctrl-C ends it)")
        if not is_local(options.host):
            open_to = "whoever reaches this machine can use the page; there is no password"
            console.say(f"zoo: listening on {options.host}: {open_to}.")

    run(
        host=options.host,
        port=options.port,
        limits=limits,
        methods=tuple(split_list(options.methods)),
        device=options.device,
        precision=options.precision,
        names=options.allow_host or (),
        open_browser=not options.no_open,
        ready=ready,
    )
