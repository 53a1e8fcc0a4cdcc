"""``zoo serve``: the zoo as a page in the browser, for one person or a few, on this machine.

    work         one order (content, style, methods, size, ...) -> results with their time and memory; no web in it
    line         orders one after the other, in a thread of their own
    visits       what the page keeps for every visitor: uploads, results on disk, and the order in work
    values       what the browser sends and is sent
    words        tables, captions and sentences as the page shows them
    page         what the page does when its widgets are used
    widgets      how they look, and which does what (Gradio)
    application  what is answered, to whom, and what is not (ASGI)
    server       address, port, cleaning up

Only ``widgets``, ``application`` and ``server`` need the extra ``serve``.
"""

from __future__ import annotations
