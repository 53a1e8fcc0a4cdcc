"""Write docs/metrics.md from registry.yaml, docstrings, the harness's measures and docs/goldens.

``python docs/metric_pages.py``: nothing in that page is typed by hand, so that it cannot disagree with what runs; with
--check nothing is written and the exit code is 1 where it is out of date.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

import yaml

from zoo.bench.measures import MEASURES
from zoo.config import describe_source
from zoo.registry import MetricEntry, load_registry, module_source

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "metrics.md"
INTRODUCTION = """\
# Metrics

Every metric has one file in `zoo/metrics`, one entry in `registry.yaml` and one section here, made of both. Images are
RGB in [0, 1] and of the size at which the method gave them; a metric's value depends on the pixels alone. None is a
verdict: content kept and style carried are different things, and a copy of the content, or of the style, wins half of
the columns (the sanity rows of every table show it).

`zoo bench` takes metrics by name from its protocol, with settings as `{name: ssim, settings: {channels: rgb}}`; in
Python `zoo.metrics.load_metric("ssim", channels="rgb")` builds one of a picture, `load_set_metric("fid")` one of a set.
Where weights are missing, rows are `skipped` with the command that fetches them.

The values that the tests hold every release to are those of three fixed pairs (docs/goldens/pictures.py: a photograph
under a veil of a style, 128 pixels). Below each metric that needs no download stands a script which computes them
again, from the encoder's features alone; run it in docs/goldens.
"""
MEASURED = """
## Speed and memory

What the harness measures itself, a process per method and size. A column of a table is the mean over its pairs, of
memory the largest; of a cell's repeats a time is the median, of the steps of an optimisation the mean. The first call
is of a method that optimises one step and of others a picture, so it is not ranked. `.iqr` stands from four repeats up
and `.p95` from twenty; what has no column is in `table.csv` and `rows.jsonl`.

| measure | what it is | of | unit | column |
|---|---|---|---|---|"""


def measures() -> list[str]:
    """A row per measure of the harness."""
    return [
        f"| `{name}` | {measure.title} | a {measure.scope} | {measure.unit or 'none'} | {measure.column or '–'} |"
        for name, measure in MEASURES.items()
    ]


def page() -> str:
    """The whole page."""
    entries = load_registry().metrics
    rows = [
        f"| [`{name}`](#{name}) | {entry.measures} | {'a set' if entry.scope == 'set' else 'a picture'} "
        f"| {entry.direction} | {entry.range} | {_downloads(entry) or 'none'} |"
        for name, entry in entries.items()
    ]
    table = ["| metric | measures | of | better | range | downloads |", "|---|---|---|---|---|---|", *rows]
    return (
        "\n".join(
            [INTRODUCTION, *table, MEASURED, *measures(), *(section(name, entry) for name, entry in entries.items())]
        )
        + "\n"
    )


def section(name: str, entry: MetricEntry) -> str:
    """One metric: what the registry says, its file's docstring, its options, and the script of its recorded values."""
    module, _, cls = entry.implementation.partition(":")
    source = module_source(module)
    lines = [f"\n## {name}", "", f"**{entry.title}**", ""]
    lines.append(f"- {entry.direction} is better; range {entry.range}; unit {entry.unit or 'none'}")
    lines.append(f"- version {entry.version}; reference: {entry.reference}")
    if entry.encoder:
        lines.append(f"- features: {entry.encoder}, which comes with the zoo")
    lines.append(f"- downloads: {_downloads(entry) or 'none'}")
    if entry.package:
        lines.append(f"- package: {entry.package}, in the extra `metrics`")
    lines += ["", _prose(ast.get_docstring(ast.parse(source)) or "")]
    options = describe_source(source, cls)
    if options:
        lines += ["", "| setting | default | meaning |", "|---|---|---|"]
        lines += [f"| `{spec.name}` | `{_plain(spec.default)}` | {spec.help} |" for spec in options]
    script = DOCS / "goldens" / f"{name}.py"
    if script.exists():
        recorded = yaml.safe_load((DOCS / "goldens" / "recorded.yaml").read_text(encoding="utf-8"))
        values = {**recorded["pictures"], **recorded["sets"]}[name]
        within = recorded["tolerances"].get(name, recorded["tolerance"])
        lines += ["", f"Recorded: {', '.join(f'{value:g}' for value in values)}, each within {within:g} of itself."]
        lines += ["", f"Computed again (`docs/goldens/{name}.py`):", "", "```python"]
        lines += [script.read_text(encoding="utf-8").strip(), "```"]
    return "\n".join(lines)


def _downloads(entry: MetricEntry) -> str:
    networks = load_registry().networks
    needed = [f"`zoo weights fetch {name}`" for name in entry.needs]
    optional = [f"`{name}` for other settings" for name in entry.optional if name in networks or entry.encoder]
    return ", ".join(needed + optional)


def _prose(docstring: str) -> str:
    """A docstring as Markdown: one backtick for two, and no Sphinx roles."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", docstring)
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def main() -> int:
    """Write the page, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if something would change")
    check = parser.parse_args().check
    text = page()
    stale = not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text
    if stale and not check:
        PAGE.write_text(text, encoding="utf-8")
    if stale:
        print(f"docs/metrics.md: {'is stale: run python docs/metric_pages.py' if check else 'updated'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
