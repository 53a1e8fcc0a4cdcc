"""What every figure shares: fonts that stay text in the PDF, widths in millimetres, one look per method, saving.

A method is told by its colour, its marker and its line style together, so that a figure printed in grey, or seen by
somebody who does not tell red from green, says the same.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.errors import ConfigError, ProtocolError
from zoo.files import replacing
from zoo.registry import load_registry

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

MM = 1 / 25.4
# The text block of a two-column conference page is 170 to 178 mm wide, one of its columns 82 to 86.
PAGE_MM = 174.0
GUTTER_MM = 6.0
PNG_DPI = 300

# Okabe and Ito 2008, without the yellow that vanishes on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# As many as no multiple of the colours, so that the two run through all their combinations.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))
BASELINE_COLOR = "0.45"
# A letter, a line and the handle before it in a legend of 6.5 points.
_LETTER_MM, _LEGEND_LINE_MM, _HANDLE_MM = 1.25, 3.2, 11.0

_SETTINGS: Any = {
    # TrueType inside the PDF: text can be searched, copied and edited, and publishers refuse Type 3 fonts.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # a dollar in a name is one
    "font.size": 7.0,
    "axes.labelsize": 7.0,
    "axes.titlesize": 7.0,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.2,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "figure.dpi": 100,
    "savefig.dpi": PNG_DPI,
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn in every figure of a run."""

    color: str
    marker: str
    line: Any


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """A look per label, by its place in the run; the colours come first, so up to seven methods differ in all."""
    return {
        label: Look(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])
        for i, label in enumerate(dict.fromkeys(labels))
    }


def short_names(labels: Sequence[str]) -> dict[str, str]:
    """Labels as figures print them: ``gatys.zoo[num_steps=50]`` becomes ``gatys, num_steps=50``.

    The tag goes where no other label has the same method; options that a protocol changed always stay.
    """
    known = load_registry().methods
    parts = {label: _parts(label, known) for label in dict.fromkeys(labels)}
    tags: dict[str, set[str]] = {}
    for method, tag, _ in parts.values():
        tags.setdefault(method, set()).add(tag)
    return {
        label: (f"{method}.{tag}" if tag and len(tags[method]) > 1 else method)
        + (f", {options.replace(',', ', ')}" if options else "")
        for label, (method, tag, options) in parts.items()
    }


def _parts(label: str, known: Container[str]) -> tuple[str, str, str]:
    """Method, tag and options; a dot in a name that the registry lacks (a folder of pictures) is part of the name."""
    name, _, options = label.partition("[")
    method, _, tag = name.partition(".")
    return (method, tag, options.removesuffix("]")) if method in known else (name, "", options.removesuffix("]"))


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """Draw and save with the fonts and widths of the figures, whatever the caller's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Of a script that the font lacks every letter is a box, which is seen in the figure.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new(width_mm: float, height_mm: float, *, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure of exactly this size, independent of pyplot; ConfigError below 40 mm, where no text fits."""
    from matplotlib.figure import Figure

    if not 40 <= width_mm <= 1000:
        raise ConfigError(f"A figure {width_mm:g} mm wide cannot be drawn: give a width from 40 to 1000.")
    return Figure(figsize=(width_mm * MM, height_mm * MM), layout=layout)


def letter_marker(letter: str) -> Any:
    """Return a marker in the form of a letter, which matplotlib draws as mathematics."""
    import matplotlib
    from matplotlib.markers import MarkerStyle

    with matplotlib.rc_context({"text.parse_math": True}):
        return MarkerStyle(f"${letter}$")


def column(page_mm: float) -> float:
    """The width of one of two columns of a page, in millimetres; narrow pages are used whole."""
    return (page_mm - GUTTER_MM) / 2 if page_mm >= 2 * 70 + GUTTER_MM else page_mm


def log_axis(axis: Axis, values: Sequence[float]) -> None:
    """Plain numbers at the powers of ten, and at their double and fivefold where those alone would be too few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    span = math.log10(max(values) / min(values)) if values and min(values) > 0 else 0.0
    axis.set_major_locator(LogLocator(subs=(1.0,) if span > 2.5 else (1.0, 2.0, 5.0), numticks=20))
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float, _: object = None) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def add_legend(figure: Figure, height_mm: float, *panels: Axes, more: Sequence[tuple[Artist, str]] = ()) -> None:
    """One legend for all panels, below everything else, where it can cover no data; two columns where they fit.

    The figure grows by what the legend takes, so that the panels keep ``height_mm``.
    """
    width = figure.get_figwidth() / MM
    entries = {text: handle for axes in panels for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    entries |= {text: handle for handle, text in more}
    longest = max(map(len, entries)) * _LETTER_MM + _HANDLE_MM
    columns = 2 if len(entries) > 2 and longest < width / 2 else 1
    figure.set_figheight((height_mm + _LEGEND_LINE_MM * -(-len(entries) // columns) + 2.0) * MM)
    figure.legend(entries.values(), entries.keys(), loc="outside lower left", ncols=columns)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """``NAME.pdf`` and ``NAME.png`` (300 dots per inch), each in one move; the same numbers give the same bytes.

    Raises ProtocolError where the folder cannot be written.
    """
    written = []
    for form, metadata in (("pdf", {"CreationDate": None}), ("png", None)):
        target = folder / f"{name}.{form}"
        for picture in (picture for axes in figure.axes for picture in axes.images):
            # The PDF embeds pictures with their own pixels; on a raster they are filtered where they shrink.
            picture.set_interpolation("none" if form == "pdf" else "auto")
        with replacing(target, ProtocolError) as work:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(work, format=form, metadata=metadata)
        written.append(target)
    return written
