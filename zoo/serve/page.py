"""The page: widgets, and what happens when they are used. All work is done in :mod:`zoo.serve.work`.

Gradio draws the widgets; the functions behind them are called by :mod:`zoo.serve.application` with what the browser
sent, as it came, so every value is checked here (:mod:`zoo.serve.values`). A click on *Stylise* puts an order into the
line, and a clock in the page then asks how it goes. Mistakes come back as sentences in the page; nothing here raises
for them, so the browser logs no errors.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio import themes

from zoo import images
from zoo.errors import ImageError, ZooError
from zoo.serve import words
from zoo.serve.values import SKIP, file, number, text, texts, token_of, update, whole
from zoo.serve.visits import Visit, Visits
from zoo.serve.work import PRESERVE_COLOR, Choice, Order, Picture, Workshop
from zoo.words import counted

UPLOAD = "upload:"
ROLES = ("content", "style")
DEFAULTS = {"content": "astronaut", "style": "swirls"}
DEFAULT_METHODS = ("adain",)
_INTERVAL_SECONDS = 0.5

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


def theme() -> themes.Base:
    """Gradio's default colours with the system's fonts."""
    return themes.Default(font=FONTS, font_mono=MONOSPACE)


class Page:
    """What the widgets do. ``key`` is the page's session; every method may run in another thread."""

    def __init__(self, workshop: Workshop, visits: Visits) -> None:
        self.workshop, self.visits, self.limits = workshop, visits, workshop.limits

    def picture(self, visit: Visit, role: str, chosen: object) -> Picture:
        """The picture that a role's list shows as chosen; ImageError where the upload is gone."""
        name = text(chosen, role.capitalize()) or DEFAULTS[role]
        if name.startswith(UPLOAD):
            if role not in visit.uploads:
                raise ImageError(f"The {role} that was dropped here is no longer kept: drop it again.")
            return visit.uploads[role]
        return Picture.builtin(images.builtin(name).name)

    def show(self, key: str, role: str, chosen: object) -> tuple[Any, str]:
        """Preview and message for a choice from the list."""
        try:
            visit = self.visits.get(key)
            return file(visit.keep_preview(role, self.workshop.preview(self.picture(visit, role, chosen)))), ""
        except ZooError as error:
            return None, words.fault(str(error))

    def accept(self, key: str, role: str, dropped: object) -> tuple[str, Any, str]:
        """Take an uploaded file as this role's picture: name and preview, or empty and the sentence that says why not;
        all empty where none was dropped."""
        if dropped is None:
            return "", None, ""
        try:
            visit = self.visits.get(key)
            picture = self.visits.take(token_of(dropped))
            preview = self.workshop.preview(picture)
            shown = file(visit.keep_preview(role, preview))
        except ZooError as error:
            return "", None, words.fault(str(error))
        visit.uploads[role] = picture
        height, width = preview.source_size
        return picture.name, shown, words.note(f"{picture.name}: {width} x {height} pixels.")

    def trained(self, picked: object, style: object, before: object) -> tuple[list[str], str | None]:
        """Trained styles of the picked methods, and which is chosen: as before, or as the style image, or the first."""
        names = self.workshop.trained_styles(tuple(texts(picked, "Methods")))
        chosen = next((name for name in (before, style) if name in names), names[0] if names else None)
        return names, chosen  # pyright: ignore[reportReturnType]

    def order(self, key: str, given: Mapping[str, Any]) -> int:
        """Put the widgets' values into the line as an order, and say how many are before it. Raises InputError,
        ImageError and UnknownNameError for what cannot be done."""
        visit = self.visits.get(key)
        order = Order(
            self.picture(visit, "content", given["content"]),
            self.picture(visit, "style", given["style"]),
            tuple(texts(given["methods"], "Methods")),
            size=whole(given["size"], "Size"),
            strength=number(given["strength"], "Strength"),
            seed=whole(given["seed"], "Seed"),
            steps=whole(given["steps"], "Steps") or None,
            preserve_color=text(given["preserve_color"], "Preserve colour"),
            trained_style=text(given["trained"], "Trained style") or None,
            mask=visit.uploads.get("mask"),
        )
        self.workshop.check(order)
        return self.visits.order(key, order)

    def busy(self, key: str) -> bool:
        """Whether this page's order is in work or waiting."""
        job = self.visits.get(key).job
        return job is not None and not job.done

    def look(self, key: str) -> tuple[Any, Any, str, bool]:
        """How this page's order goes: pictures and table where there are new ones, the message, and whether it is
        done."""
        job = self.visits.get(key).job
        if job is None:
            return SKIP, SKIP, words.fault("This page was away too long, and its order was dropped: begin again."), True
        visit, done, results = self.visits.get(key), job.done, list(job.results)
        if done and job.fault:
            said = words.note(job.fault) if job.stop.is_set() else words.fault(job.fault)
        elif done:
            said = words.done(results)
        elif before := self.visits.line.before(job):
            said = words.note(f"{counted(before, 'order is', 'orders are')} before yours.")
        else:
            said = words.working(*job.progress)
        if len(results) == visit.told and not done:
            return SKIP, SKIP, said, False
        visit.told = len(results)
        pictures = [{"image": file(address), "caption": caption} for address, caption in job.pictures]
        return pictures, words.table(results), said, done

    def stop(self, key: str) -> str:
        """Ask this page's order to stop."""
        job = self.visits.get(key).job
        if job is None or job.done:
            return words.note("Nothing is in work.")
        self.visits.line.stop(job)
        return words.note("Asked to stop at the next step.")


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
                    mask = gr.File(
                        label=f"Mask: white takes the style ({_names(choices, 'masks')})",
                        height=150,
                        elem_id="mask-drop",
                    )
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
        # Looks how the order goes, while there is one.
        clock = gr.Timer(_INTERVAL_SECONDS, active=False)

        # Answered at once; nothing is offered to programs as an interface.
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        def wire(role: str, shown: gr.Dropdown, drop: gr.File, preview: gr.Image) -> None:
            def choose(chosen: Any, request: gr.Request) -> tuple[Any, str]:
                return page.show(key_of(request), role, chosen)

            def accept(dropped: Any, request: gr.Request) -> tuple[Any, Any, Any, str]:
                name, image, said = page.accept(key_of(request), role, dropped)
                if not name:
                    return SKIP, None, SKIP, said
                listed = [*_builtin(role), (f"your own: {name}", UPLOAD + name)]
                return update(choices=listed, value=UPLOAD + name), None, image, said

            shown.input(choose, [shown], [preview, message], **quick)
            drop.upload(accept, [drop], [shown, drop, preview, message], **quick)

        for wiring in zip(ROLES, lists, drops, previews, strict=True):
            wire(*wiring)

        def begin(request: gr.Request) -> list[Any]:
            shown = [page.show(key_of(request), role, DEFAULTS[role]) for role in ROLES]
            return [*(preview for preview, _ in shown), next((said for _, said in shown if said), "")]

        def styles(picked: Any, style: Any, before: Any, request: gr.Request) -> Any:
            names, chosen = page.trained(picked, style, before)
            return update(choices=[(name, name) for name in names], value=chosen, visible=bool(names))

        def follow(picked: Any, style: Any, request: gr.Request) -> Any:
            return styles(picked, style, None, request)

        def accept_mask(dropped: Any, request: gr.Request) -> tuple[Any, Any, Any, str]:
            name, image, said = page.accept(key_of(request), "mask", dropped)
            if not name:
                return None, SKIP, SKIP, said
            return None, update(value=image, visible=True), update(visible=True), said

        def drop_mask(request: gr.Request) -> tuple[Any, Any]:
            page.visits.get(key_of(request)).uploads.pop("mask", None)
            return update(value=None, visible=False), update(visible=False)

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

        # Those that only look something up are coroutines, which zoo.serve.application calls without a thread.
        async def order(*values: Any) -> tuple[Any, ...]:
            *given, request = values
            try:
                page.order(key_of(request), dict(zip(inputs, given, strict=True)))
            except ZooError as error:
                said = words.fault(str(error))
                # The clock overwrites the message while an order is in work.
                return (SKIP, SKIP, SKIP, said, SKIP) if page.busy(key_of(request)) else (SKIP, SKIP, said, "", SKIP)
            return [], "", words.note("Working ..."), "", update(active=True)

        async def look(request: gr.Request) -> tuple[Any, Any, Any, Any]:
            pictures, table, said, done = page.look(key_of(request))
            return pictures, table, said, update(active=False) if done else SKIP

        async def ask_to_stop(request: gr.Request) -> str:
            return page.stop(key_of(request))

        mask.upload(accept_mask, [mask], [mask, mask_preview, no_mask, message], **quick)
        no_mask.click(drop_mask, [], [mask_preview, no_mask], **quick)
        methods.change(styles, [methods, style_list, trained], [trained], **quick)
        style_list.input(follow, [methods, style_list], [trained], **quick)
        start.click(order, list(inputs.values()), [gallery, figures, message, stopping, clock], **quick)
        clock.tick(look, [], [gallery, figures, message, clock], **quick)
        stop.click(ask_to_stop, [], [stopping], **quick)
        blocks.load(begin, [], [*previews, message], **quick)
        # Makes the browser hold a connection open that tells whether the page is still there.
        blocks.unload(lambda: None)
    return blocks


def key_of(request: gr.Request) -> str:
    """The page that asks."""
    return request.session_hash or ""


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
        drop = gr.File(label=f"Your own {role}", height=150, elem_id=f"{role}-drop")
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
