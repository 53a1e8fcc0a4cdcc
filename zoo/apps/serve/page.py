"""What the page does when its widgets are used, without knowing how they look. All work is done elsewhere.

Every value is checked here, as it comes from the browser as it was sent. Mistakes come back as sentences for the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo import images
from zoo.apps.serve import words
from zoo.apps.serve.values import SKIP, file, is_film, number, text, texts, token_of, whole
from zoo.apps.serve.visits import Visit, Visits
from zoo.apps.serve.work import Order, Picture, Workshop
from zoo.errors import ImageError, ZooError
from zoo.words import counted

# A choice of a list that is the visitor's own file.
UPLOAD = "upload:"
DEFAULTS = {"content": "astronaut", "style": "swirls"}


class Page:
    """Answers to the widgets. ``key`` is the page's own; every method may run in another thread. Those that give no
    message raise ZooError."""

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
            if picture.film and role != "content":
                raise ImageError(f"'{picture.name}' is a film: a {role} is a picture.")
            preview = self.workshop.preview(picture)
            shown = file(visit.keep_preview(role, preview))
        except ZooError as error:
            return "", None, words.fault(str(error))
        visit.uploads[role] = picture
        height, width = preview.source_size
        kind = "a film of " if picture.film else ""
        return picture.name, shown, words.note(f"{picture.name}: {kind}{width} x {height} pixels.")

    def trained(self, picked: object, style: object, before: object) -> tuple[list[str], str | None]:
        """Trained styles of the picked methods, and which is chosen: as before, or as the style image, or the first."""
        names = self.workshop.trained_styles(tuple(texts(picked, "Methods")))
        earlier = (name for wanted in (before, style) for name in names if name == wanted)
        return names, next(earlier, names[0] if names else None)

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
            preserve_color=text(given["preserve_color"], "Preserve color"),
            trained_style=text(given["trained"], "Trained style") or None,
            mask=visit.uploads.get("mask"),
        )
        self.workshop.check(order)
        return self.visits.order(key, order)

    def busy(self, key: str) -> bool:
        """Return whether this page's order is in work or waiting."""
        job = self.visits.get(key).job
        return job is not None and not job.done

    def look(self, key: str) -> tuple[Any, Any, str, bool]:
        """Return how this page's order goes: new pictures and the table where there are any, the message, and
        whether it is done."""
        visit = self.visits.get(key)
        job = visit.job
        if job is None:
            return SKIP, SKIP, words.fault("This page was away too long, and its order was dropped: begin again."), True
        done, results = job.done, list(job.results)
        if done and job.fault:
            said = (words.note if job.stop.is_set() else words.fault)(words.without_folders(job.fault))
        elif done:
            said = words.done(results)
        elif before := self.visits.line.before(job):
            said = words.note(f"{counted(before, 'order is', 'orders are')} before yours.")
        else:
            said = words.working(*job.progress)
        if len(results) == visit.told and not done:
            return SKIP, SKIP, said, False
        visit.told = len(results)
        pictures = [
            {"video" if is_film(address) else "image": file(address), "caption": caption}
            for address, caption in job.pictures
        ]
        return pictures, words.table(results), said, done

    def stop(self, key: str) -> str:
        """Ask this page's order to stop."""
        job = self.visits.get(key).job
        if job is None or job.done:
            return words.note("Nothing is in work.")
        self.visits.line.stop(job)
        return words.note("Asked to stop at the next step.")
