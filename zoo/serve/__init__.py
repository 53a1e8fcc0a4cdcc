"""``zoo serve``: the zoo as a page in the browser, for one person or a few, on this machine.

    work      one order (content, style, methods, size, ...) -> results with their time and memory; no web in it
    visits    what the page keeps for every visitor: uploads, results on disk, and the line before the one worker
    words     tables, captions and sentences as the page shows them
    page      the widgets and what each does (Gradio)
    server    address, port, cleaning up

Only ``page`` and ``server`` need the extra ``serve``.
"""

from __future__ import annotations
