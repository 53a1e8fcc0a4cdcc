"""A table as it is read, whatever it is of, in four forms: terminal, Markdown, LaTeX and HTML.

:class:`Form` holds texts that are already rounded; nothing here computes. The forms agree in every number.

LaTeX needs the packages booktabs, siunitx (version 3) and graphicx: numbers stand in ``S`` columns, aligned at the
decimal marker, and a table wider than the text is scaled down to it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from zoo.words import visible

if TYPE_CHECKING:
    from rich.table import Table as RichTable

MISSING = "–"
# Rows of a LaTeX table that fit on a page turned on its side, as report.tex is.
_PAGE = 32
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


@dataclass(frozen=True)
class Entry:
    """One cell: its text, its spread (``± 0.02`` or ``[0.10, 0.14]``), whether it is the best or second of its column,
    and the numbers of its footnotes."""

    text: str
    spread: str = ""
    mark: Literal["", "best", "second"] = ""
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Heading:
    """A column's heading; ``numeric`` ones are aligned as numbers."""

    text: str
    numeric: bool = True


@dataclass(frozen=True)
class Group:
    """Rows that belong together, under a title (or none). ``aside`` ones, such as sanity rows, are set apart."""

    title: str
    rows: Sequence[Sequence[Entry]]
    aside: bool = False


@dataclass(frozen=True)
class Form:
    """A table to be read: ``name`` is its stem and its LaTeX label, ``foot`` the footnotes by number from 1, ``said``
    what else must be said."""

    name: str
    caption: str
    headings: Sequence[Heading]
    groups: Sequence[Group]
    foot: Sequence[str] = ()
    said: Sequence[str] = field(default_factory=tuple)

    @property
    def below(self) -> list[str]:
        """Footnotes with their numbers, then what else must be said."""
        return [f"({i}) {note}" for i, note in enumerate(self.foot, 1)] + list(self.said)


def to_rich(form: Form) -> RichTable:
    """For the terminal: spreads left out, sanity rows dim."""
    from rich.table import Table as RichTable
    from rich.text import Text

    # Texts and not strings: names may look like markup, which is the console's to read or not.
    shown = RichTable(title=Text(visible(form.caption)), title_justify="left", caption_justify="left")
    for i, heading in enumerate(form.headings):
        # Headings wrap at their blanks; a method's name folded in two could not be copied.
        justify = "right" if heading.numeric else "left"
        shown.add_column(Text(visible(heading.text)), justify=justify, overflow="fold", no_wrap=i == 0)
    style = {"": "", "best": "bold", "second": "underline"}
    for group in form.groups:
        for row in group.rows:
            cells = [Text(visible(entry.text) + _marks(entry), style[entry.mark]) for entry in row]
            shown.add_row(*cells, style="dim" if group.aside else None)
    shown.caption = Text("\n".join(map(visible, form.below))) if form.below else None
    return shown


def _marks(entry: Entry) -> str:
    return "".join(f" ({note})" for note in entry.notes)


# -- Markdown ------------------------------------------------------------------------------------------------------


def to_markdown(*forms: Form) -> str:
    """GitHub's form: caption above, best bold, second underlined, groups as rows in italics, footnotes below."""
    return "\n".join(map(_markdown, forms))


def _markdown(form: Form) -> str:

    def cell(entry: Entry) -> str:
        text = escape_markdown(entry.text)
        text = {"best": f"**{text}**", "second": f"<ins>{text}</ins>"}.get(entry.mark, text)
        return text + (f" {entry.spread}" if entry.spread else "") + _marks(entry)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    lines = [escape_markdown(form.caption), "", line([escape_markdown(heading.text) for heading in form.headings])]
    lines.append("|" + "|".join("---:" if heading.numeric else "---" for heading in form.headings) + "|")
    for group in form.groups:
        if group.title:
            lines.append(line([f"*{escape_markdown(group.title)}*", *[""] * (len(form.headings) - 1)]))
        lines += [line([cell(entry) for entry in row]) for row in group.rows]
    return "\n".join([*lines, *(part for note in form.below for part in ("", escape_markdown(note)))]) + "\n"


# What begins a cell, a link, an entity or another kind of letters; an underscore inside a word is one to GitHub too.
_MARKDOWN = re.compile(r"[\\|*`]|<(?=[A-Za-z/!?])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=\])\(|&(?=#?\w+;)")


def escape_markdown(text: str) -> str:
    """Return text as GitHub's Markdown shows it, on one line."""
    return _MARKDOWN.sub(r"\\\g<0>", re.sub(r"\s*[\r\n]\s*", " ", text))


# -- LaTeX ---------------------------------------------------------------------------------------------------------

_TEX = {
    "\\": r"\textbackslash{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "−": "$-$",
    "µ": r"$\mu$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "°": r"$^\circ$",
    "⁄": "/",
    "é": r"\'e",
    "š": r"\v{s}",
    "ß": r"\ss{}",
    "ı": r"\i{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{
        character: f"\\{name}{{}}"
        for character, name in zip("æÆœŒøØłŁ", ["ae", "AE", "oe", "OE", "o", "O", "l", "L"], strict=True)
    },
}
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi o pi rho varsigma sigma tau upsilon"
_TEX |= {
    chr(0x3B1 + i): rf"$\{name}$" if name != "o" else "o"
    for i, name in enumerate(f"{_GREEK} phi chi psi omega".split())
}
_TEX |= {
    letter: rf"$\{name.title()}$"
    for letter, name in zip(
        "ΓΔΘΛΞΠΣΦΨΩ", ["gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "phi", "psi", "omega"], strict=True
    )
}
# Marks over and under letters that every text font has, by their combining characters.
_MARKS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0323\u0327\u0331"
_ACCENTS = dict(zip(_MARKS, "`'^~=u.\"rHvdcb", strict=True))


def escape_tex(text: str) -> str:
    """Return text as LaTeX prints it in any font encoding, on one line; what no Latin font has is a question mark."""
    text = unicodedata.normalize("NFC", re.sub(r"\s", " ", text))
    found: list[str] = []
    for i, character in enumerate(text):
        # Two hyphens in a row would become one dash.
        found.append("-{}" if text[i : i + 2] == "--" else _TEX.get(character, ""))
        if not found[-1]:
            _add(found, character)
    return "".join(found)


def _add(found: list[str], character: str) -> None:
    """Add a character that has no command of its own as plain letters, with the marks that have one."""
    for part in unicodedata.normalize("NFKD", character):
        if part in _ACCENTS and found[-1]:
            found[-1] = rf"\{_ACCENTS[part]}{{{found[-1]}}}"
        elif not unicodedata.combining(part) and part.isprintable():
            found.append(_TEX.get(part, part if part.isascii() else "?"))


def to_latex(*forms: Form, wide: bool = False) -> str:
    """``table`` environments that can be pasted into a manuscript; ``wide`` ones (``table*``) span two columns.

    A number with a spread takes two columns, so that both are aligned: ``S`` for the number, ``l`` for its spread. A
    table of more rows than a page holds goes on in further environments, footnotes below the last.
    """
    return r"% \usepackage{booktabs,graphicx,siunitx}" + "\n" + "\n".join(_latex(form, wide) for form in forms)


def _latex(form: Form, wide: bool) -> str:
    pages = _pages(form.groups)
    parts = []
    for i, groups in enumerate(pages):
        first, last = i == 0, i == len(pages) - 1
        part = replace(form, groups=groups, foot=form.foot if last else (), said=form.said if last else ())
        part = part if first else replace(part, caption=f"{form.caption} (continued)")
        parts.append(_tex_table(part, first, "table*" if wide else "table"))
    return "\n".join(parts)


def _pages(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups cut and spread over pages of at most _PAGE rows, titles included."""
    pages: list[list[Group]] = [[]]
    left = _PAGE
    for group in groups:
        rows, title = list(group.rows), group.title
        while rows:
            if left < 3:
                pages.append([])
                left = _PAGE
            taken = rows[: left - 1]
            pages[-1].append(replace(group, title=title, rows=taken))
            rows, left = rows[len(taken) :], left - len(taken) - 1
    return pages


def _tex_table(form: Form, labeled: bool, environment: str) -> str:
    rows = [row for group in form.groups for row in group.rows]
    columns = [_TexColumn.of(heading, [row[i] for row in rows]) for i, heading in enumerate(form.headings)]
    width = sum(1 + column.spread for column in columns)
    lines = [
        rf"\begin{{{environment}}}[{'tbp' if environment.endswith('*') else 'htbp'}]",
        r"\centering",
        # In text mode numbers are bold with any fonts: some, such as mathptmx, have no bold mathematics.
        r"\sisetup{detect-weight=true,mode=text}",
        rf"\caption{{{escape_tex(form.caption)}.}}",
        *([rf"\label{{tab:{form.name}}}"] if labeled else []),
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join(column.spec for column in columns)}}}",
        r"\toprule",
        _tex_row([column.head for column in columns]),
    ]
    for group in form.groups:
        lines.append(r"\midrule")
        if group.title:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\itshape {escape_tex(group.title)}}} \\")
        for row in group.rows:
            lines.append(_tex_row([column.cell(entry) for column, entry in zip(columns, row, strict=True)]))
    lines += [r"\bottomrule", r"\end{tabular}}"]
    if form.below:
        notes = [rf"\textsuperscript{{{i}}}\,{escape_tex(note)}" for i, note in enumerate(form.foot, 1)]
        notes += [escape_tex(said) for said in form.said]
        lines += ["", r"\smallskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright"]
        lines += [note + r"\par" for note in notes]
        lines.append(r"\end{minipage}")
    return "\n".join([*lines, rf"\end{{{environment}}}"]) + "\n"


def _tex_row(cells: Sequence[str]) -> str:
    """A row. A bracket or star that began it would be taken for an argument of the line before."""
    text = " & ".join(cells)
    return (f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text) + r" \\"


@dataclass(frozen=True)
class _TexColumn:
    """How a column is set: digits before and after the marker, whether any number is negative or has a spread."""

    heading: Heading
    whole: int
    decimals: int
    negative: bool
    spread: bool

    @classmethod
    def of(cls, heading: Heading, entries: Sequence[Entry]) -> _TexColumn:
        numbers = [entry.text for entry in entries if heading.numeric and _NUMBER.fullmatch(entry.text)]
        parts = [number.lstrip("-").partition(".") for number in numbers]
        return cls(
            heading,
            max((len(part[0]) for part in parts), default=1),
            max((len(part[2]) for part in parts), default=0),
            any(number.startswith("-") for number in numbers),
            heading.numeric and any(entry.spread for entry in entries),
        )

    @property
    def spec(self) -> str:
        if not self.heading.numeric:
            return "l"
        number = rf"S[table-format={'-' * self.negative}{self.whole}.{self.decimals}]"
        return number + (r"@{\,}l" if self.spread else "")

    @property
    def head(self) -> str:
        text = escape_tex(self.heading.text)
        if not self.heading.numeric:
            return text
        return rf"\multicolumn{{2}}{{c}}{{{text}}}" if self.spread else f"{{{text}}}"

    def cell(self, entry: Entry) -> str:
        """The entry, and the cell of its spread where the column has one."""
        marks = "".join(rf"\textsuperscript{{{note}}}" for note in entry.notes)
        if not self.heading.numeric:
            text = escape_tex(entry.text)
            text = {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}"}.get(entry.mark, text)
            return text + (f" {escape_tex(entry.spread)}" if entry.spread else "") + marks
        text = self._number(entry)
        return f"{text} & {escape_tex(entry.spread)}{marks}" if self.spread else text

    def _number(self, entry: Entry) -> str:
        if not _NUMBER.fullmatch(entry.text):
            return f"{{{escape_tex(entry.text)}}}"
        if entry.mark == "best":
            return rf"\bfseries {entry.text}"
        if entry.mark == "second":
            # siunitx cannot underline what it parses: the number stands beside it, padded to the width of the format.
            whole, marker, decimals = entry.text.lstrip("-").partition(".")
            missing = "0" * (self.whole - len(whole)) + "-" * (self.negative and not entry.text.startswith("-"))
            rest = ("" if marker or not self.decimals else ".") + "0" * (self.decimals - len(decimals))
            text = entry.text.replace("-", "$-$")
            return rf"{{{_phantom(missing)}\underline{{{text}}}{_phantom(rest)}}}"
        return entry.text


def _phantom(text: str) -> str:
    return rf"\phantom{{{text.replace('-', '$-$')}}}" if text else ""


# -- HTML ----------------------------------------------------------------------------------------------------------

_STYLE = """\
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
table:not(:first-child) { margin-top: 2.5rem; }
caption { text-align: left; padding-bottom: .6rem; }
th, td { padding: .25rem .7rem; text-align: left; white-space: nowrap; }
thead th { border-bottom: 2px solid currentColor; white-space: normal; vertical-align: bottom; }
.number { text-align: right; }
.group th { font-style: italic; font-weight: normal; padding-top: .7rem; border-bottom: 1px solid #8888; }
.aside { opacity: .7; }
.spread { opacity: .7; font-size: .85em; }
.best { font-weight: bold; }
.second { text-decoration: underline; }
.notes { max-width: 60rem; }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #16181c; } }
"""


def to_html(*forms: Form) -> str:
    """A page with the tables alone; it asks for nothing from anywhere."""
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        f'<head><meta charset="utf-8"><title>{html.escape(forms[0].caption)}</title>',
        f"<style>\n{_STYLE}</style></head>",
        "<body>",
        *map(html_table, forms),
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def html_table(form: Form) -> str:
    """The ``table`` element and its footnotes, for a page of another's making."""

    def cell(entry: Entry, heading: Heading, tag: str) -> str:
        text = html.escape(entry.text)
        if entry.mark:
            text = f'<span class="{entry.mark}">{text}</span>'
        if entry.spread:
            text += f' <span class="spread">{html.escape(entry.spread)}</span>'
        text += "".join(f"<sup>{note}</sup>" for note in entry.notes)
        kind = ' class="number"' if heading.numeric else ""
        scope = ' scope="row"' if tag == "th" else ""
        return f"<{tag}{scope}{kind}>{text}</{tag}>"

    def across(heading: Heading) -> str:
        kind = ' class="number"' if heading.numeric else ""
        return f'<th scope="col"{kind}>{html.escape(heading.text)}</th>'

    lines = ["<table>", f"<caption>{html.escape(form.caption)}</caption>"]
    lines.append("<thead><tr>" + "".join(map(across, form.headings)) + "</tr></thead>")
    for group in form.groups:
        lines.append('<tbody class="aside">' if group.aside else "<tbody>")
        if group.title:
            title = html.escape(group.title)
            lines.append(f'<tr class="group"><th scope="rowgroup" colspan="{len(form.headings)}">{title}</th></tr>')
        for row in group.rows:
            cells = zip(row, form.headings, strict=True)
            lines.append(
                "<tr>" + "".join(cell(e, head, "th" if i == 0 else "td") for i, (e, head) in enumerate(cells)) + "</tr>"
            )
        lines.append("</tbody>")
    lines.append("</table>")
    if form.foot:
        lines.append('<ol class="notes">' + "".join(f"<li>{html.escape(note)}</li>" for note in form.foot) + "</ol>")
    lines += [f'<p class="notes">{html.escape(said)}</p>' for said in form.said]
    return "\n".join(lines)
