"""The page: widgets, and what happens when they are used. All work is done in :mod:`zoo.serve.work`.

A click first takes a place in the line (``enqueue``, answered at once) and then waits for the one worker (``work``).
Mistakes come back as sentences in the page; nothing here raises for them, so the browser logs no errors.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import themes

from zoo import images
from zoo.errors import ImageError, ZooError
from zoo.serve import words
from zoo.serve.visits import Visit, Visits
from zoo.serve.work import PRESERVE_COLOR, Choice, Order, Picture, Result, Workshop

UPLOAD = "upload:"
ROLES = ("content", "style")
DEFAULTS = {"content": "astronaut", "style": "swirls"}
DEFAULT_METHODS = ("adain",)

CSS = """
#results .grid-wrap {max-height: none; min-height: 0}
.figures, .figures thead, .figures tr {border: 0 !important}
.figures {border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums}
.figures th, .figures td {padding: .3em .6em !important; text-align: left; border: 0 !important;
 border-bottom: 1px solid var(--border-color-primary) !important}
.figures .failed td {color: var(--error-text-color)}
.footnote {font-size: .85em; color: var(--body-text-color-subdued); max-width: 75ch}
.note, .fault {margin: 0; padding: .5em .8em; border-radius: 4px}
.fault {background: var(--error-background-fill); color: var(--error-text-color);
 border: 1px solid var(--error-border-color)}
"""
# No web fonts: whatever the reader's system has.
FONTS = ("system-ui", "sans-serif")
MONOSPACE = ("ui-monospace", "monospace")


def drop_zone(label: str, name: str) -> gr.File:
    """A file input that takes what was uploaded here and nothing else: never an address for the server to fetch."""
    zone = gr.File(label=label, height=150, elem_id=name)
    cache = Path(zone.GRADIO_CACHE).resolve()

    async def uploaded(url_or_file_path: str | Path | None) -> str | None:
        if url_or_file_path is None:
            return None
        path = Path(url_or_file_path).resolve()
        if not path.is_relative_to(cache) or not path.is_file():
            message = "The file was not uploaded here."
            raise gr.Error(message)
        return str(path)

    # On the instance, because Gradio writes a stub file beside the source of a subclass.
    zone.async_move_resource_to_block_cache = uploaded
    return zone


def theme() -> themes.Base:
    """Gradio's default colours with the system's fonts."""
    return themes.Default(font=FONTS, font_mono=MONOSPACE)


class Page:
    """What the widgets do. ``key`` is the page's session; every method may run in another thread."""

    def __init__(self, workshop: Workshop, visits: Visits) -> None:
        self.workshop, self.visits, self.limits = workshop, visits, workshop.limits

    def picture(self, visit: Visit, role: str, chosen: str | None) -> Picture:
        """The picture that a role's list shows as chosen; ImageError where the upload is gone."""
        if chosen and chosen.startswith(UPLOAD):
            if role not in visit.uploads:
                raise ImageError(f"The {role} that was dropped here is no longer kept: drop it again.")
            return visit.uploads[role]
        return Picture.builtin(chosen or DEFAULTS[role])

    def show(self, key: str, role: str, chosen: str | None) -> tuple[str | None, str]:
        """Preview and message for a choice from the list."""
        visit = self.visits.get(key)
        try:
            preview = self.workshop.preview(self.picture(visit, role, chosen))
            return str(visit.keep_preview(role, preview)), ""
        except ZooError as error:
            return None, words.fault(str(error))

    def accept(self, key: str, role: str, path: str) -> tuple[str | None, str]:
        """Take an uploaded file as this role's picture: preview, or None and the sentence that says why not."""
        visit = self.visits.get(key)
        try:
            picture = self.visits.take(path)
            preview = self.workshop.preview(picture)
            shown = str(visit.keep_preview(role, preview))
        except ZooError as error:
            return None, words.fault(str(error))
        visit.uploads[role] = picture
        height, width = preview.source_size
        return shown, words.note(f"{picture.name}: {width} x {height} pixels.")

    def trained(self, picked: list[str] | None, style: str | None, before: str | None) -> tuple[list[str], str | None]:
        """Trained styles of the picked methods, and which is chosen: as before, or as the style image, or the first."""
        names = self.workshop.trained_styles(tuple(picked or ()))
        chosen = next((name for name in (before, style) if name in names), names[0] if names else None)
        return names, chosen

    def order(self, key: str, given: Mapping[str, Any]) -> Order:
        """The widgets' values as an order."""
        visit = self.visits.get(key)
        steps = int(given["steps"] or 0)
        return Order(
            self.picture(visit, "content", given["content"]),
            self.picture(visit, "style", given["style"]),
            tuple(given["methods"] or ()),
            size=int(given["size"]),
            strength=float(given["strength"]),
            seed=int(given["seed"] or 0),
            steps=steps or None,
            preserve_color=given["preserve_color"],
            trained_style=given["trained"] or None,
            mask=visit.uploads.get("mask"),
        )

    def work(self, key: str, given: Mapping[str, Any], progress: Any) -> Iterator[tuple[list[Any], str, str]]:
        """Carry out the order at the head of the line: pictures with captions, table and message, method by method."""
        if not self.visits.waits(key):
            return
        visit = self.visits.get(key)
        gallery: list[tuple[str, str]] = []
        results: list[Result] = []
        try:
            if visit.stop.is_set():
                yield [], "", words.note("Stopped before it began.")
                return
            order = self.order(key, given)
            folder = visit.begin_results()

            def report(method: str) -> Any:
                progress(0, desc=method)

                def tell(step: int, total: int, losses: Mapping[str, float], image: Any, /) -> None:
                    progress((step, total), desc=method, unit="steps")

                return tell

            yield [], "", words.note("Working ...")
            for result in self.workshop.run(order, report, visit.stop.is_set):
                results.append(result)
                if result.image is not None:
                    path = visit.keep_result(folder, result, order.content.name)
                    gallery.append((str(path), words.caption(result)))
                last = len(results) == len(order.methods)
                said = words.done(results) if last else f"{len(results)} of {len(order.methods)} methods done ..."
                yield list(gallery), words.table(results), words.note(said)
        except ZooError as error:
            yield gallery, words.table(results), words.fault(str(error))
        finally:
            self.visits.done(key)


def build(workshop: Workshop, visits: Visits) -> gr.Blocks:
    """The page's widgets, wired to ``workshop`` and ``visits``."""
    page, limits = Page(workshop, visits), workshop.limits
    choices = list(workshop.choices.values())
    picked = [name for name in DEFAULT_METHODS if name in workshop.choices] or [choices[0].name]
    with gr.Blocks(title="Style-transfer zoo", analytics_enabled=False) as blocks:
        gr.Markdown("# Style-transfer zoo")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                with gr.Row():
                    lists, drops, previews = zip(*(_chooser(role) for role in ROLES), strict=True)
                methods = gr.CheckboxGroup(
                    [(_label(choice), choice.name) for choice in choices], value=picked, label="Methods"
                )
                trained = gr.Dropdown(
                    [],
                    visible=False,
                    label="Trained style",
                    info="of methods that take no style image",
                    elem_id="trained-list",
                )
                with gr.Row():
                    size = gr.Slider(
                        64, limits.side, min(512, limits.side), step=16, label="Size", info="long side in pixels"
                    )
                    strength = gr.Slider(0, 1, 1, step=0.05, label="Strength", info="0 keeps the content")
                colour = gr.Radio(
                    list(PRESERVE_COLOR), value="none", label="Preserve colour", info="keep those of the content"
                )
                with gr.Accordion("Mask, steps, seed", open=False):
                    mask = drop_zone(f"Mask: white takes the style ({_names(choices, 'masks')})", "mask-drop")
                    mask_preview = gr.Image(
                        label="Mask", height=140, interactive=False, visible=False, buttons=[], elem_id="mask-preview"
                    )
                    no_mask = gr.Button("Remove the mask", size="sm", visible=False)
                    steps = gr.Slider(
                        0,
                        limits.steps,
                        0,
                        step=1,
                        label=f"Steps ({_names(choices, 'takes_steps')})",
                        info="0 takes each method's own number",
                    )
                    seed = gr.Number(0, precision=0, label="Seed")
                with gr.Row():
                    start = gr.Button("Stylise", variant="primary")
                    stop = gr.Button("Stop")
            with gr.Column(scale=3, min_width=320):
                # The answer to Stop has a place of its own: it may arrive after the last word of the work it stopped.
                stopping = gr.HTML(elem_id="stopping")
                message = gr.HTML(elem_id="message")
                gallery = gr.Gallery(
                    label="Results",
                    columns=3,
                    fit_columns=False,
                    object_fit="contain",
                    height="auto",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="results",
                )
                figures = gr.HTML(elem_id="figures")
        with gr.Accordion("What the pictures are", open=False):
            gr.HTML(_sources())
        content_list, style_list = lists

        # Answered at once, beside the worker; nothing is offered to programs as an interface.
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        def key_of(request: gr.Request) -> str:
            return request.session_hash or "none"

        def wire(role: str, shown: gr.Dropdown, drop: gr.File, preview: gr.Image) -> None:
            def choose(chosen: str | None, request: gr.Request) -> tuple[str | None, str]:
                return page.show(key_of(request), role, chosen)

            def accept(path: str | None, request: gr.Request) -> tuple[Any, Any, Any, str]:
                if path is None:
                    return gr.skip(), None, gr.skip(), ""
                image, said = page.accept(key_of(request), role, path)
                if image is None:
                    return gr.skip(), None, gr.skip(), said
                name = page.visits.get(key_of(request)).uploads[role].name
                listed = [*_builtin(role), (f"your own: {name}", UPLOAD + name)]
                return gr.update(choices=listed, value=UPLOAD + name), None, image, said

            shown.input(choose, [shown], [preview, message], **quick)
            drop.upload(accept, [drop], [shown, drop, preview, message], **quick)

        for wiring in zip(ROLES, lists, drops, previews, strict=True):
            wire(*wiring)

        def begin(request: gr.Request) -> list[str | None]:
            return [page.show(key_of(request), role, DEFAULTS[role])[0] for role in ROLES]

        def styles(picked: list[str], style: str, before: str | None) -> Any:
            names, chosen = page.trained(picked, style, before)
            return gr.update(choices=names, value=chosen, visible=bool(names))

        def follow(picked: list[str], style: str) -> Any:
            return styles(picked, style, None)

        def accept_mask(path: str | None, request: gr.Request) -> tuple[Any, Any, Any, str]:
            if path is None:
                return None, gr.skip(), gr.skip(), ""
            image, said = page.accept(key_of(request), "mask", path)
            if image is None:
                return None, gr.skip(), gr.skip(), said
            return None, gr.update(value=image, visible=True), gr.update(visible=True), said

        def drop_mask(request: gr.Request) -> tuple[Any, Any]:
            page.visits.get(key_of(request)).uploads.pop("mask", None)
            return gr.update(value=None, visible=False), gr.update(visible=False)

        inputs = {
            "content": content_list,
            "style": style_list,
            "methods": methods,
            "trained": trained,
            "size": size,
            "strength": strength,
            "preserve_color": colour,
            "steps": steps,
            "seed": seed,
        }

        def enqueue(request: gr.Request) -> str:
            try:
                before = page.visits.enqueue(key_of(request))
            except ZooError as error:
                return words.fault(str(error))
            return words.note(f"{before} {'order is' if before == 1 else 'orders are'} before yours." if before else "")

        # Gradio knows its own parameters by the annotation of one and the default of the other.
        def work(values: dict[Any, Any], request: gr.Request, progress: Any = gr.Progress()) -> Iterator[Any]:  # noqa: B008
            given = {name: values[component] for name, component in inputs.items()}
            yield from page.work(key_of(request), given, progress)

        def ask_to_stop(request: gr.Request) -> str:
            key = key_of(request)
            page.visits.get(key).stop.set()
            return words.note("Asked to stop at the next step." if page.visits.waits(key) else "Nothing is in work.")

        def leave(request: gr.Request) -> None:
            page.visits.drop(key_of(request))

        mask.upload(accept_mask, [mask], [mask, mask_preview, no_mask, message], **quick)
        no_mask.click(drop_mask, [], [mask_preview, no_mask], **quick)
        methods.change(styles, [methods, style_list, trained], [trained], **quick)
        style_list.input(follow, [methods, style_list], [trained], **quick)
        start.click(enqueue, [], [message], **quick).then(
            work,
            set(inputs.values()),
            [gallery, figures, message],
            concurrency_limit=1,
            show_progress="minimal",
            show_progress_on=[message],
            api_visibility="private",
        )
        stop.click(ask_to_stop, [], [stopping], **quick)
        start.click(lambda: "", [], [stopping], **quick)
        blocks.load(begin, [], list(previews), **quick)
        blocks.unload(leave)
    # Places in the line are given above; this only bounds what a program could push past it.
    blocks.queue(max_size=4 * limits.waiting, default_concurrency_limit=1)
    return blocks


def _chooser(role: str) -> tuple[gr.Dropdown, gr.File, gr.Image]:
    with gr.Column(min_width=200):
        shown = gr.Dropdown(_builtin(role), value=DEFAULTS[role], label=role.capitalize(), elem_id=f"{role}-list")
        preview = gr.Image(
            label=role.capitalize(),
            show_label=False,
            height=200,
            interactive=False,
            buttons=[],
            elem_id=f"{role}-preview",
        )
        drop = drop_zone(f"Your own {role}", f"{role}-drop")
    return shown, drop, preview


def _builtin(role: str) -> list[tuple[str, str]]:
    known = images.builtin_contents() if role == "content" else images.builtin_styles()
    return [(entry.name.replace("_", " "), name) for name, entry in known.items()]


def _label(choice: Choice) -> str:
    return f"{choice.name} (trained styles)" if choice.trained else choice.name


def _names(choices: list[Choice], attribute: str) -> str:
    return ", ".join(choice.name for choice in choices if getattr(choice, attribute)) or "no method here"


def _sources() -> str:
    lines = [
        f"<li>{html.escape(entry.name)}: {html.escape(entry.title)}, {html.escape(entry.author)}; "
        f"{html.escape(entry.licence)}</li>"
        for entry in (*images.builtin_contents().values(), *images.builtin_styles().values())
    ]
    return f"<ul>{''.join(lines)}</ul>"
