"""How the page looks, and which of its widgets does what (Gradio).

The functions here are called by :mod:`zoo.apps.serve.application`, not by Gradio's server, and with the values that the
browser sent. Those that only look something up are coroutines, which need no thread.
"""

from __future__ import annotations

import html
from typing import Any

import gradio as gr
from gradio import themes

from zoo import images
from zoo.apps.serve import words
from zoo.apps.serve.limits import Limits
from zoo.apps.serve.page import DEFAULTS, UPLOAD, Page
from zoo.apps.serve.values import SKIP, update
from zoo.apps.serve.visits import Visits
from zoo.apps.serve.work import Choice, Workshop
from zoo.controls.color import KEEPS
from zoo.errors import ZooError
from zoo.names import DEFAULT_METHOD
from zoo.options import Look, described

_INTERVAL_SECONDS = 0.5
# Answered at once; nothing is offered to programs as an interface.
_QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

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
    """Gradio's default colors with the system's fonts."""
    return themes.Default(font=FONTS, font_mono=MONOSPACE)


def build(workshop: Workshop, visits: Visits) -> gr.Blocks:
    """The page's widgets, wired to ``workshop`` and ``visits``."""
    page = Page(workshop, visits)
    with gr.Blocks(title="Style-transfer zoo", analytics_enabled=False) as blocks:
        widgets = Widgets(list(workshop.choices.values()), workshop.limits)
        for role in DEFAULTS:
            _wire_list(page, widgets, role)
        _wire_mask(page, widgets)
        _wire_trained(page, widgets)
        _wire_order(page, widgets)

        def begin(request: gr.Request) -> list[Any]:
            shown = [page.show(key_of(request), role, name) for role, name in DEFAULTS.items()]
            return [*(preview for preview, _ in shown), next((said for _, said in shown if said), "")]

        def leave(request: gr.Request) -> None:
            """Does nothing: the connection tells."""

        blocks.load(begin, [], [*widgets.previews.values(), widgets.message], **_QUICK)
        # For pages with such a function Gradio's scripts hold a connection open.
        blocks.unload(leave)
    return blocks


def key_of(request: gr.Request) -> str:
    """The page that asks."""
    return request.session_hash or ""


class Widgets:
    """The page as it is drawn."""

    def __init__(self, choices: list[Choice], limits: Limits) -> None:
        gr.Markdown("# Style-transfer zoo")
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                self._draw_pictures()
                self._draw_methods(choices)
                self._draw_controls(choices, limits)
                with gr.Row():
                    self.start = gr.Button("Stylise", variant="primary")
                    self.stop = gr.Button("Stop")
            with gr.Column(scale=3, min_width=320):
                self._draw_results()
        with gr.Accordion("What the pictures are", open=False):
            gr.HTML(_sources())
        # Looks how the order goes, while there is one.
        self.clock = gr.Timer(_INTERVAL_SECONDS, active=False)

    def _draw_pictures(self) -> None:
        self.lists: dict[str, gr.Dropdown] = {}
        self.drops: dict[str, gr.File] = {}
        self.previews: dict[str, gr.Image] = {}
        with gr.Row():
            for role, name in DEFAULTS.items():
                with gr.Column(min_width=200):
                    label, listed = role.capitalize(), _builtin(role)
                    self.lists[role] = gr.Dropdown(listed, value=name, label=label, elem_id=f"{role}-list")
                    self.previews[role] = gr.Image(
                        label=label,
                        show_label=False,
                        height=200,
                        interactive=False,
                        buttons=[],
                        elem_id=f"{role}-preview",
                    )
                    self.drops[role] = gr.File(label=f"Your own {role}", height=150, elem_id=f"{role}-drop")

    def _draw_methods(self, choices: list[Choice]) -> None:
        names = [choice.name for choice in choices]
        picked = [DEFAULT_METHOD] if DEFAULT_METHOD in names else names[:1]
        self.methods = gr.CheckboxGroup([(_label(c), c.name) for c in choices], value=picked, label="Methods")
        self.trained = gr.Dropdown(
            [], visible=False, label="Trained style", info="of methods that take no style image", elem_id="trained-list"
        )

    def _draw_controls(self, choices: list[Choice], limits: Limits) -> None:
        masked, stepped = _names(choices, "masks"), _names(choices, "takes_steps")
        strength, kept, seed = (described(Look, name) for name in ("strength", "preserve_color", "seed"))
        with gr.Row():
            side = limits.side
            self.size = gr.Slider(64, side, min(512, side), step=16, label="Size", info="long side in pixels")
            self.strength = gr.Slider(
                strength.low, strength.high, strength.default, step=0.05, label="Strength", info=strength.help
            )
        self.color = gr.Radio(list(KEEPS), value=kept.default, label="Preserve color", info=kept.help)
        with gr.Accordion("Mask, steps, seed", open=False):
            self.mask = gr.File(label=f"Mask: white takes the style ({masked})", height=150, elem_id="mask-drop")
            self.mask_preview = gr.Image(
                label="Mask", height=140, interactive=False, visible=False, buttons=[], elem_id="mask-preview"
            )
            self.no_mask = gr.Button("Remove the mask", size="sm", visible=False)
            self.steps = gr.Slider(
                0, limits.steps, 0, step=1, label=f"Steps ({stepped})", info="0 takes each method's own number"
            )
            self.seed = gr.Number(seed.default, precision=0, label="Seed", info=seed.help)

    def _draw_results(self) -> None:
        # The answer to Stop has a place of its own: it may arrive after the last word of the work it stopped.
        self.stopping = gr.HTML(elem_id="stopping")
        self.message = gr.HTML(elem_id="message")
        self.gallery = gr.Gallery(
            label="Results",
            columns=3,
            fit_columns=False,
            object_fit="contain",
            height="auto",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id="results",
        )
        self.figures = gr.HTML(elem_id="figures")


def _wire_list(page: Page, widgets: Widgets, role: str) -> None:
    shown, drop, preview = widgets.lists[role], widgets.drops[role], widgets.previews[role]

    def choose(chosen: Any, request: gr.Request) -> tuple[Any, str]:
        return page.show(key_of(request), role, chosen)

    def accept(dropped: Any, request: gr.Request) -> tuple[Any, Any, Any, str]:
        name, image, said = page.accept(key_of(request), role, dropped)
        if not name:
            return SKIP, None, SKIP, said
        listed = [*_builtin(role), (f"your own: {name}", UPLOAD + name)]
        return update(choices=listed, value=UPLOAD + name), None, image, said

    shown.input(choose, [shown], [preview, widgets.message], **_QUICK)
    drop.upload(accept, [drop], [shown, drop, preview, widgets.message], **_QUICK)


def _wire_mask(page: Page, widgets: Widgets) -> None:
    mask, preview, remove = widgets.mask, widgets.mask_preview, widgets.no_mask

    def accept_mask(dropped: Any, request: gr.Request) -> tuple[Any, Any, Any, str]:
        name, image, said = page.accept(key_of(request), "mask", dropped)
        if not name:
            return None, SKIP, SKIP, said
        return None, update(value=image, visible=True), update(visible=True), said

    async def drop_mask(request: gr.Request) -> tuple[Any, Any]:
        page.visits.get(key_of(request)).uploads.pop("mask", None)
        return update(value=None, visible=False), update(visible=False)

    mask.upload(accept_mask, [mask], [mask, preview, remove, widgets.message], **_QUICK)
    remove.click(drop_mask, [], [preview, remove], **_QUICK)


def _wire_trained(page: Page, widgets: Widgets) -> None:
    methods, style, trained = widgets.methods, widgets.lists["style"], widgets.trained

    def styles(picked: Any, style: Any, before: Any, request: gr.Request) -> Any:
        names, chosen = page.trained(picked, style, before)
        return update(choices=[(name, name) for name in names], value=chosen, visible=bool(names))

    def follow(picked: Any, style: Any, request: gr.Request) -> Any:
        return styles(picked, style, None, request)

    methods.change(styles, [methods, style, trained], [trained], **_QUICK)
    style.input(follow, [methods, style], [trained], **_QUICK)


def _wire_order(page: Page, widgets: Widgets) -> None:
    message, stopping, clock = widgets.message, widgets.stopping, widgets.clock
    results = [widgets.gallery, widgets.figures]
    inputs = {
        "content": widgets.lists["content"],
        "style": widgets.lists["style"],
        "methods": widgets.methods,
        "trained": widgets.trained,
        "size": widgets.size,
        "strength": widgets.strength,
        "preserve_color": widgets.color,
        "steps": widgets.steps,
        "seed": widgets.seed,
    }

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

    widgets.start.click(order, list(inputs.values()), [*results, message, stopping, clock], **_QUICK)
    clock.tick(look, [], [*results, message, clock], **_QUICK)
    widgets.stop.click(ask_to_stop, [], [stopping], **_QUICK)


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
        f"{html.escape(entry.license)}</li>"
        for entry in (*images.builtin_contents().values(), *images.builtin_styles().values())
    ]
    return f"<ul>{''.join(lines)}</ul>"
