"""What comes of many pictures in one call: those that cannot be made are named, and everything else is kept."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zoo.cli.streams import console
from zoo.errors import ImageError, InputError, MemoryLimitError, NumericalError, out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.stylizer import Stylized

# What can be wrong with one input and right with the next; anything else would be wrong with all of them.
_OF_ONE = (ImageError, InputError, MemoryLimitError, NumericalError)


class Batch:
    """The pictures of one call: what was made, a contact sheet and the losses where these are wanted, what was not."""

    def __init__(
        self, count: int, method: str, inner: int, sheet: str | None, losses: str | None, *, alone: bool | None = None
    ) -> None:
        """``count`` pictures are to be made with ``method``, each of ``inner`` styles.

        The error of a picture that is ``alone`` is the call's; by default where there is only one.

        Raises :class:`ImageError` where a sheet of so many would not fit its file.
        """
        from zoo import images

        self.count, self.method, self.inner = count, method, inner
        self.alone = count == 1 if alone is None else alone
        self.sheet, self.losses = sheet, losses
        self.cell = images.sheet_cell(sheet, count, inner + 2) if sheet else 0
        self.left_out = 0
        self.summaries: list[dict[str, Any]] = []
        self._rows: list[list[Tensor | None]] = []
        self._loss_rows: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def sparing(self, source: str, pictures: int = 1) -> Iterator[None]:
        """Name what goes wrong with ``source`` inside the block, count its ``pictures`` as left out, and go on."""
        try:
            yield
        except Exception as error:
            said = str(error) if isinstance(error, _OF_ONE) else out_of_memory(error)
            if said is None or self.alone:
                raise
            self.left_out += pictures
            console.say(f"zoo: left out: {said}" if source in said else f"zoo: left out: {source}: {said}")

    def add(self, summary: dict[str, Any], result: Stylized, shown: Sequence[Tensor | None]) -> None:
        """Keep what is told of a picture at the end; ``shown`` are its content and styles for the sheet."""
        from zoo import images
        from zoo.nn.tiles import from_levels

        self.summaries.append(summary)
        if self.losses:
            self._loss_rows += [{"output": summary["output"], **row} for row in result.losses]
        if self.sheet:  # shrunk at once: whole pictures would not fit into memory
            row = [*shown, result.image]
            size = f"long:{self.cell}"
            self._rows.append([None if image is None else images.resize(from_levels(image), size) for image in row])

    def close(self, *, as_json: bool, quiet: bool) -> None:
        """Print the summary, write the losses and the sheet: each, whatever becomes of the others."""
        if not self.summaries and not self.left_out:
            return
        with contextlib.ExitStack() as rest:
            if self.sheet and self._rows:
                rest.callback(self._write_sheet, self.sheet)
            if self.losses:
                rest.callback(self._write_losses, Path(self.losses))
            if as_json:
                typer.echo(json.dumps(self.summaries, indent=2))
            elif not quiet:
                for s in self.summaries:
                    state = ", stopped early" if s["stopped"] else ""
                    console.say(f"{s['output']}  {s['width']}x{s['height']}  {s['seconds']:.2f} s{state}")
            if self.left_out:
                console.say(f"zoo: {len(self.summaries)} of {self.count} pictures made, {self.left_out} left out.")

    def _write_sheet(self, path: str) -> None:
        from zoo import images

        styles = ["style"] if self.inner == 1 else [f"style {i + 1}" for i in range(self.inner)]
        sheet = images.contact_sheet(self._rows, column_labels=["content", *styles, self.method], cell=self.cell)
        images.write(path, sheet)

    def _write_losses(self, path: Path) -> None:
        from zoo import files

        columns = list(dict.fromkeys(["output", "step", *(key for row in self._loss_rows for key in row)]))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self._loss_rows)
        files.write(path, text.getvalue(), ImageError)
