"""A two-page paper of a run to begin from: ``zoo report RUN --paper``.

    paper.tex        title, protocol, methods, metrics and results in words that the rows and the registry fill in
    cost.tex         seconds and memory of every method at one size
    quality.tex      a few metrics of content and style with their intervals, and the sanity rows
    references.bib   what the run used; the text cites what the paper shows
    figures/         the grid as JPEG, content against style, seconds against size
    paper.pdf        where TeX is installed

A paper.tex that somebody edited stays as it is; tables, figures and references are made anew beside it, so that a
manuscript can follow its run. The words, in ``paper_template.tex``, hold no number of their own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.bench.folder import Folder, write_text
from zoo.bench.measures import MEASURES, PRIMARY
from zoo.bench.plan import of_run
from zoo.bench.rows import Row, latest, read_rows
from zoo.errors import ProtocolError
from zoo.files import replacing
from zoo.references import references
from zoo.registry import Registry, load_registry
from zoo.report import summary, words
from zoo.report.bibliography import bibliography, image_sets
from zoo.report.families import FAMILIES, SANITY, family, method_entry
from zoo.report.figures import FigureOptions, Figures, draw_figures
from zoo.report.figures.canvas import short_names
from zoo.report.figures.data import pareto, tradeoff, tradeoff_metrics
from zoo.report.forms import escape_tex, to_latex
from zoo.report.layout import Layout
from zoo.report.narrow import choose, form, part
from zoo.report.present import number
from zoo.report.statistics import ALPHA
from zoo.report.tables import build_table, read_run
from zoo.words import counted

# As many columns with intervals as stay readable across a page at the size of a footnote.
_CONTENT, _STYLE = 3, 4
_FIGURES = ("grid", "tradeoff", "speed")
_MARK = "% Written by zoo report --paper; once edited it is kept. sha256 of the rest: "
_TOOLS = ("pdflatex", "bibtex")
_TEX_SECONDS = 120
_JPEG_QUALITY = 82
# The grid stands above the first page's text and leaves it two thirds of the page.
_GRID_MM, _ASPECT = 80.0, 0.8


@dataclass(frozen=True)
class Paper:
    """What was written: the folder, its paper.pdf and number of pages where TeX built it, and what must be said."""

    folder: Path
    pdf: Path | None
    pages: int
    said: tuple[str, ...]


def write_paper(
    run: Path, out: Path | None = None, *, layout: Layout | None = None, figures: FigureOptions | None = None
) -> Paper:
    """Write the paper of a results folder into ``out`` (default: RUN/paper).

    ``layout`` gives names, digits, intervals and, where it lists columns, those of both tables; ``figures`` the pairs,
    methods, zoom, size and width of the figures. Raises ProtocolError where no method was measured or a file cannot be
    written, UnknownNameError and ConfigError for choices that do not exist. Without TeX there is no PDF, which is said.
    """
    folder = Folder(run)
    run_file = read_run(folder)
    source = _Source(run_file, latest(read_rows(folder.rows)), load_registry(), layout or Layout(), figures)
    target = out if out is not None else run / "paper"
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".building-") as building:
            drawn = draw_figures(run, Path(building) / "figures", source.figures)
            texts = source.texts(drawn)
            pictures = _keep(Path(building) / "figures", target / "figures")
    except OSError as error:
        raise ProtocolError(f"The paper {target} cannot be written: {error.strerror}.") from error
    said = []
    if _edited(target / "paper.tex"):
        said.append(f"{target / 'paper.tex'} was edited and stays; tables, figures and references are new.")
        del texts["paper.tex"]
    for name, text in texts.items():
        write_text(target / name, text)
    files = ["paper.tex", "cost.tex", "quality.tex", "references.bib", *(f"figures/{name}" for name in pictures)]
    pdf, pages, why = build_pdf(target, [name for name in files if (target / name).exists()], source.epoch)
    return Paper(target, pdf, pages, (*said, *([why] if why else [])))


# -- files ---------------------------------------------------------------------------------------------------------


def _marked(text: str) -> str:
    return f"{_MARK}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def _edited(path: Path) -> bool:
    """Whether a paper.tex is there that is not as it was written."""
    try:
        first, _, rest = path.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True
    return f"{first}\n{rest}" != _marked(rest)


def _keep(drawn: Path, target: Path) -> list[str]:
    """Move what the paper shows from where it was drawn: charts as PDF, the grid of photographs as JPEG."""
    from PIL import Image

    target.mkdir(exist_ok=True)
    kept = [path.name for path in sorted(drawn.glob("*.pdf")) if path.stem != "grid"]
    if (drawn / "grid.png").exists():
        with Image.open(drawn / "grid.png") as opened:
            dpi = opened.info.get("dpi", (300, 300))
            opened.convert("RGB").save(drawn / "grid.jpg", quality=_JPEG_QUALITY, optimize=True, dpi=dpi)
        kept.append("grid.jpg")
    for name in kept:
        os.replace(drawn / name, target / name)
    return kept


def build_pdf(folder: Path, files: Iterable[str], epoch: int = 0) -> tuple[Path | None, int, str]:
    """Compile ``paper.tex`` beside the ``files`` it reads: paper.pdf, its pages and, where there is none, why.

    It is compiled in a folder of its own, so that nothing but the PDF stays behind; ``epoch`` is the time that the PDF
    says it was made at, in seconds.
    """
    tools = [shutil.which(name) for name in _TOOLS]
    if None in tools:
        return None, 0, "No PDF was built: pdflatex and bibtex are not installed."
    latex = [str(tools[0]), "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "FORCE_SOURCE_DATE": "1"}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for file in files:
            (place / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / file, place / file)
        for command in (latex, [str(tools[1]), "paper"], latex, latex):
            try:
                done = subprocess.run(
                    command,
                    cwd=place,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    encoding="utf-8",
                    errors="replace",
                    timeout=_TEX_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return None, 0, f"No PDF was built: {Path(command[0]).name} took over {_TEX_SECONDS} s."
            if done.returncode:
                fault = re.search(r"^! .*|^I (?:couldn't|found) .*", done.stdout, re.MULTILINE)
                text = fault[0] if fault else "no reason given"
                return None, 0, f"No PDF was built: {Path(command[0]).name} stopped ({text.rstrip('.')})."
        pages = re.search(
            r"Output written on paper\.pdf \((\d+) page",
            (place / "paper.log").read_text(encoding="utf-8", errors="replace"),
        )
        with replacing(folder / "paper.pdf", ProtocolError) as work:
            shutil.copyfile(place / "paper.pdf", work)
    return folder / "paper.pdf", int(pages[1]) if pages else 0, ""


# -- words ---------------------------------------------------------------------------------------------------------


class _Source:
    """A run, and what of it the paper shows: one size and strength, some columns."""

    def __init__(
        self,
        run_file: dict[str, Any],
        rows: Sequence[Row],
        registry: Registry,
        layout: Layout,
        figures: FigureOptions | None,
    ) -> None:
        self.run_file, self.rows, self.registry = run_file, rows, registry
        self.protocol: dict[str, Any] = run_file["protocol"]["resolved"]
        self.baselines = set(self.protocol["baselines"])
        if not any(row.method not in self.baselines and not of_run(row) for row in rows):
            raise ProtocolError("No method of this run was measured, so there is nothing to write about.")
        options = figures or FigureOptions()
        if layout.size is None and options.size is not None:
            layout = layout.model_copy(update={"size": options.size})
        self.choice = choose(rows, run_file, registry, layout, content=_CONTENT, style=_STYLE)
        self.size, self.metrics = self.choice.size, self.choice.metrics
        shown = {*self.metrics, *self.choice.measures, PRIMARY}
        self.table = build_table(
            [row for row in self.choice.rows if row.metric in shown or of_run(row)], run_file, registry
        )
        self.methods = list(dict.fromkeys(line.method for line in self.table.lines if not line.baseline))
        self.names = {**short_names([line.method for line in self.table.lines]), **layout.names}
        self.layout = layout
        # A picture is at most as wide as its column, and most are wider than high.
        fitting = int(_GRID_MM * (len(options.methods or self.methods) + 2) / (options.width * _ASPECT))
        self.figures = replace(
            options,
            only=_FIGURES,
            size=self.size,
            sample=max(1, min(options.sample, fitting)),
            names={**options.names, **layout.names},
        )
        self.epoch = words.epoch(rows)

    def texts(self, drawn: Figures) -> dict[str, str]:
        """Every text file of the paper by name."""
        cost, quality = self._form("cost"), self._form("quality")
        texts = {"references.bib": bibliography(self.rows, self.run_file, self.registry, _KEYWORDS)}
        texts |= {name: text for name, text in (("cost.tex", cost), ("quality.tex", quality)) if text}
        texts["paper.tex"] = _marked(words.render({**self._words(drawn), "cost": bool(cost), "quality": bool(quality)}))
        return texts

    # -- tables

    def _form(self, name: str) -> str:
        table = part(self.choice, self.run_file, self.registry, name)
        if not any(column.metric in (*self.choice.measures, *self.metrics) for column in table.columns):
            return ""
        sanity = name == "quality"
        layout = self.layout.model_copy(update={"precision": False, "sanity": sanity, "names": self.names})
        # What is said below the run's own tables stands in the text here.
        return to_latex(replace(form(table, self.choice, layout, name), said=()), wide=sanity)

    # -- paragraphs

    def _words(self, drawn: Figures) -> dict[str, Any]:
        resolved, conditions = self.protocol, self.run_file["conditions"]
        fastest, slowest = self._extremes()
        contents, styles = ([image["name"] for image in resolved[role]] for role in ("contents", "styles"))
        failed, skipped = (sum(row.status == status for row in self.rows) for status in ("failed", "skipped"))
        beaten = [remark.text for remark in self.table.remarks if remark.kind == "sanity"]
        said = drawn.said
        return {
            "title": f"{counted(len(self.methods), 'style-transfer method')} under one protocol: a sample paper",
            "version": conditions["version"],
            "when": words.dates(self.rows),
            "protocol": self.table.protocol,
            "counts": {
                "methods": counted(len(self.methods), "style-transfer method"),
                "pairs": counted(len(resolved["pairs"]), "pair"),
                "rows": counted(len(self.rows), "row"),
                "failed": failed or "none",
                "skipped": skipped or "none",
                "contents": counted(len(contents), "content"),
                "styles": counted(len(styles), "style"),
            },
            "contents": f"{counted(len(contents), 'content')} ({', '.join(contents)})",
            "styles": f"{counted(len(styles), 'style')} ({', '.join(styles)})",
            "sizes": words.sizes(resolved),
            "seeds": words.varied(resolved),
            "sets": [words.image_set(name) + self._cite([f"set:{name}"]) for name in image_sets(self.run_file)],
            "machine": conditions["machine"],
            "device": conditions["device"],
            "threads": counted(int(conditions["threads"]), "thread"),
            "libraries": self._libraries(),
            "timing": words.timing(resolved),
            "remarks": [remark.text for remark in self.table.remarks if remark.kind != "sanity"],
            "reasons": words.reasons(self._lost()),
            "families": self._families(),
            "precision": self._precision(),
            "encoders": self._encoders(),
            "sanity": self._sanity(),
            "metrics": self._metric_names(),
            "more": self._more(),
            "intervals": self.table.intervals if self.layout.intervals != "none" else "",
            "drawn_over_pairs": self.layout.intervals != "none"
            and any(metric in line.intervals for line in self.table.lines for metric in self.metrics),
            "cites": {name: self._cite([f"statistics:{name}"]) for name in ("intervals", "comparisons")},
            "at": words.pixels(self.size),
            "fastest": fastest,
            "slowest": slowest,
            "contests": self._contests(),
            "beaten": beaten,
            "front": self._front() if "tradeoff" in drawn.written else [],
            "tradeoff": said.get("tradeoff", ""),
            "speed": said.get("speed", ""),
            "grid": said.get("grid", ""),
            "grid_rows": min(len(self.figures.pairs) or self.figures.sample, len(resolved["pairs"])),
            "no_grid": drawn.omitted.get("grid", ""),
        }

    def _cite(self, keywords: Iterable[str]) -> str:
        wanted = set(keywords)
        keys = [reference.key for reference in references().values() if reference.of & wanted]
        return rf"~\cite{{{','.join(keys)}}}" if keys else ""

    def _libraries(self) -> str:
        """torch, python and system, as far as the last run tells."""
        environment = self.run_file["runs"][-1]["environment"] if self.run_file["runs"] else {}
        parts = [f"zoo {self.run_file['conditions']['version']}"]
        if torch := environment.get("libraries", {}).get("torch"):
            parts.append(f"torch {torch}")
        if python := environment.get("python"):
            parts.append(f"Python {python}")
        return ", ".join(parts)

    def _families(self) -> list[dict[str, Any]]:
        found: dict[str, list[dict[str, str]]] = {}
        for label in self.methods:
            entry = method_entry(label, self.registry)
            key = re.search(r"@\w+\{([^,\s]+),", entry.bibtex) if entry else None
            found.setdefault(family(label, self.registry), []).append(
                {
                    "label": label,
                    "authors": words.authors(entry.authors) if entry else "pictures",
                    "cite": rf"~\cite{{{key[1]}}}" if key else "",
                    "weights": self._weights(label),
                }
            )
        ordered = sorted(found, key=FAMILIES.index)
        return [{"title": name[0].upper() + name[1:], "methods": found[name]} for name in ordered]

    def _weights(self, label: str) -> str:
        """Where the weights of a method come from, told by the hash in its rows."""
        entry = method_entry(label, self.registry)
        if entry is None:
            return "made elsewhere"
        used = next((row.checkpoint for row in self.rows if row.method == label and row.checkpoint), None)
        if used is None:
            return "nothing trained"
        known = next((one for one in entry.checkpoints.values() if one.sha256 == used), None)
        if known is None:
            return f"weights {used[:12]}"
        if known.provenance.kind == "published":
            return "published weights"
        # Steps are of the last run alone, which may have gone on from earlier ones.
        hours = known.provenance.hours_in_all or known.provenance.hours
        return "trained by the zoo" + (f", {hours:.2g} h" if hours else "")

    def _precision(self) -> str:
        found: dict[str, list[str]] = {}
        for line in self.table.lines:
            if line.precision:
                found.setdefault(line.precision, []).append(self.names.get(line.method, line.method))
        if len(found) < 2:
            return f"{next(iter(found), 'not told')} throughout"
        return "; ".join(f"{precision} of {', '.join(names)}" for precision, names in found.items())

    def _encoders(self) -> str:
        names = list(dict.fromkeys(row.encoder for row in self.rows if row.encoder))
        # One network in several scales has one reference.
        cited = [words.code(name) + self._cite([f"encoder:{name}"]) for name in names[:1]]
        return ", ".join([*cited, *map(words.code, names[1:])])

    def _sanity(self) -> str:
        about = {
            "content-copy": "the content as it is",
            "style-copy": "the style resized to the content",
            "color-transfer": "the content in the style's colours",
        }
        shown = [line.method for line in self.table.lines if line.family == SANITY]
        return "; ".join(
            words.code(name)
            + (f", {escape_tex(about[name])}" if name in about else "")
            + self._cite([f"sanity:{name}"])
            for name in shown
        )

    def _metric_names(self) -> list[dict[str, str]]:
        """By what they measure, the metrics shown with their references and the direction that is better."""
        columns = {column.metric: column for column in self.table.columns}
        found: dict[str, list[str]] = {}
        for metric in self.metrics:
            name = metric.partition("[")[0]
            kind = "film" if name in MEASURES else self.registry.metric(name).measures
            cite = self._cite([f"metric:{name}"])
            text = f"{escape_tex(columns[metric].title)}{cite} ({columns[metric].direction} is better)"
            found.setdefault(kind, []).append(text)
        heads = {"content": "Of the content kept", "style": "Of the style carried", "both": "Of both"}
        heads["film"] = "Of films"
        return [{"title": heads[kind], "names": ", ".join(names)} for kind, names in found.items()]

    def _more(self) -> str:
        others = dict.fromkeys(
            row.metric
            for row in self.rows
            if row.status == "ok" and row.metric not in MEASURES and row.metric not in self.metrics
        )
        return ", ".join(others)

    def _contests(self) -> dict[str, int]:
        rows = [row for row in self.rows if row.metric in self.metrics]
        rows = [row for row in rows if (row.size, row.strength) == (self.size, self.choice.strength)]
        found = summary.Run(rows, self.run_file, self.registry).contests()
        certain = sum(one.p_holm is not None and one.p_holm < ALPHA for one in found)
        return {"all": len(found), "certain": certain} if found else {}

    def _extremes(self) -> tuple[dict[str, str], dict[str, str]]:
        """The fastest and the slowest method with its seconds; nothing where there are not two."""
        lines = [line for line in self.table.lines if not line.baseline]
        seconds = [(value, line.method) for line in lines if (value := line.values.get(PRIMARY)) is not None]
        if len(seconds) < 2:
            return {}, {}
        ends = (
            {"label": label, "text": f"{number(value, self.layout.digits)} s"}
            for value, label in (min(seconds), max(seconds))
        )
        return next(ends), next(ends)

    def _lost(self) -> list[str]:
        """What failed or was skipped, each reason once with what it cost; footnotes of the table come first."""
        shown = {line.method for line in self.table.lines}
        lost: dict[str, dict[str, None]] = {}
        for row in self.rows:
            if row.status != "ok" and row.reason and row.method in shown and row.metric not in self.metrics:
                lost.setdefault(row.reason, {})[row.metric] = None
        return [*self.table.notes, *(f"{', '.join(metrics)}: {reason}" for reason, metrics in lost.items())]

    def _front(self) -> list[str]:
        content, style = tradeoff_metrics(self.table, self.registry)
        content, style = self.figures.content or content, self.figures.style or style
        if content is None or style is None:
            return []
        higher = {column.metric: column.direction == "higher" for column in self.table.columns}
        if content not in higher or style not in higher:
            return []
        points = tradeoff(self.table, content, style, self.size)
        return [point.label for point in pareto(points, x_higher=higher[content], y_higher=higher[style])]


_KEYWORDS = ("statistics:intervals", "statistics:comparisons")
