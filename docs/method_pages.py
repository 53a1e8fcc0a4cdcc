"""Write docs/methods/ from registry.yaml, the methods' docstrings and options: ``python docs/method_pages.py``.

Nothing in these pages is typed by hand, so that they cannot disagree with what runs; with --check nothing is written
and the exit code is 1 where one is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from generated import DOCS, docstring, plain, table, write_pages

from zoo.bench.folder import Folder
from zoo.bench.rows import Row, latest, read_rows
from zoo.config import OptionSpec, describe_source, readable_type
from zoo.registry import PACKAGE, Checkpoint, MethodEntry, import_object, load_registry, module_source
from zoo.report.tables import read_table
from zoo.styles import find_styles, read_metadata
from zoo.stylizer import Traits

COST = DOCS.parent / "results" / "cost"
SIZE = 512
FOLDER = DOCS / "methods"
FRONT = DOCS.parent / "results" / "methods.md"
FAMILIES = {
    "gallery-optimised": (
        "Gallery: pictures fitted step by step",
        "These need no trained weights of their own: the picture itself is changed step by step, until its features "
        "are the style's. They take any style, and minutes.",
    ),
    "gallery-any-style": (
        "Gallery: any style at once",
        "One network for every style image, in one pass. Rows are photographs, columns styles.",
    ),
    "gallery-trained-styles": (
        "Gallery: trained styles",
        "Networks that know the styles they were trained on, by name, and are quickest. Rows are styles, columns "
        "photographs.",
    ),
}
INTRODUCTION = """\
# Methods

Each has one file in `zoo/methods`, one entry in `registry.yaml` and one page here, made of both. A bare name means the
default preset; `zoo info METHOD` prints the same on a terminal. *Optimises* and *statistics* are the axes of Jing et
al., Neural Style Transfer: A Review: is the picture fitted or a network trained, and is style a summary of features or
their patches.
"""


def pages() -> dict[Path, str]:
    """Every page of a method that ships, and their index."""
    registry = load_registry()
    entries = {name: entry for name, entry in registry.methods.items() if name not in registry.plugins}
    rows = [
        (
            f"[`{name}`]({name}.md)",
            f"[{entry.title}]({entry.paper}) ({entry.authors}, {entry.year})",
            f"the {'picture' if entry.taxonomy.optimizes == 'image' else 'network'}",
            entry.taxonomy.styles,
            entry.taxonomy.statistics,
        )
        for name, entry in entries.items()
    ]
    index = INTRODUCTION + "\n" + table(["method", "paper", "optimises", "styles", "statistics"], rows) + "\n"
    index += "\n## Which one?\n\n" + choice(entries) + "\n"
    galleries = {
        FOLDER / f"{family}.md": gallery(family, {n: e for n, e in entries.items() if family_of(e) == family})
        for family in FAMILIES
    }
    index += "\n## Galleries\n\n" + "".join(f"- [{title}]({name}.md)\n" for name, (title, _) in FAMILIES.items())
    own = {FOLDER / f"{name}.md": page(name, entry) for name, entry in entries.items()}
    return {FRONT: front(entries), FOLDER / "index.md": index, **galleries, **own}


def family_of(entry: MethodEntry) -> str:
    """The family that a method is shown in."""
    if entry.taxonomy.optimizes == "image":
        return "gallery-optimised"
    return "gallery-any-style" if entry.taxonomy.styles == "any" else "gallery-trained-styles"


def gallery(family: str, entries: Mapping[str, MethodEntry]) -> str:
    """A page of one family: what its methods have in common, and a picture of each."""
    title, introduction = FAMILIES[family]
    parts = [f"# {title}", introduction]
    for name, entry in entries.items():
        cited = f"[{entry.title}]({entry.paper}), {entry.year}"
        parts += [f"## {name}", f"{entry.good_for[:1].upper()}{entry.good_for[1:]}. {cited}. [Its page]({name}.md)."]
        parts.append(_sheet(name))
    if not all(_sheet(name) for name in entries):
        parts += [
            "## What goes where",
            "Label maps, a photograph's light, an object alone ([how](../what-goes-where.md)):",
            "![A drawing in a painting's paint, a cat hatched, a cup in the light of a night, an astronaut alone in a "
            "style](../images/what-goes-where.webp)",
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front(entries: Mapping[str, MethodEntry]) -> str:
    """The narrow table of the README: what each method is good for, and what a picture costs."""
    found, caption = costs(entries)
    rows = []
    for name, entry in entries.items():
        paper = f"[{entry.authors.split(', ')[0]} {entry.year}]({entry.paper})"
        rows.append((f"[`{name}`](docs/methods/{name}.md)", paper, entry.good_for, *found[name]))
    said = (
        f"Seconds and MiB above idle for one picture of {SIZE} x {SIZE} pixels; {caption}. Processors with bf16 "
        "arithmetic are several times as fast: [standard](docs/results.md#protocol-standard)."
    )
    return table(["method", "paper", "good for", "seconds", "MiB"], rows) + "\n\n" + said + "\n"


def choice(entries: Mapping[str, MethodEntry]) -> str:
    """What each can do, as its class promises, and what the same picture costs."""
    found, caption = costs(entries)
    rows = []
    for name, entry in entries.items():
        traits: Traits = import_object(entry.implementation).traits
        new = "training" if entry.taxonomy.styles != "any" else "nothing"
        promises = (traits.mixes, "content_masks" in traits.context, traits.texture)
        rows.append((f"[`{name}`]({name}.md)", new, *("yes" if one else "no" for one in promises), *found[name]))
    headings = ["method", "a new style needs", "blends styles", "a style per region", "texture alone"]
    said = (
        f"Seconds and MiB above idle for one picture of {SIZE} x {SIZE} pixels, the style encoded before, by "
        f"[protocol cost](../results.md#protocol-cost): {caption}."
    )
    return table([*headings, "seconds", "MiB"], rows) + "\n\n" + said


def costs(entries: Mapping[str, MethodEntry]) -> tuple[dict[str, tuple[str, str]], str]:
    """Seconds and MiB of the same picture by method, and under which conditions, as protocol cost measured."""
    content, style = (Folder(COST).read_run() or {})["protocol"]["resolved"]["pairs"][0]
    measured: dict[str, dict[str, Row]] = {}
    for row in latest(read_rows(Folder(COST).rows)):
        if (row.size, row.content, row.style) == (SIZE, content, style) and row.value is not None:
            measured.setdefault(row.method.partition("[")[0], {})[row.metric] = row
    found = {}
    for name, entry in entries.items():
        rows, steps = measured.get(f"{name}.{entry.default}"), ""
        if rows is None:
            found[name] = ("not measured", "")
            continue
        seconds, memory = (rows[metric].value or 0.0 for metric in ("seconds.stylize", "memory.resident"))
        if entry.taxonomy.optimizes == "image":
            done = rows["seconds.stylize"].method.partition("num_steps=")[2].partition("]")[0].partition(",")[0]
            every = next(spec.default for spec in load_registry().options(name) if spec.name == "num_steps")
            steps = f" for {done} of {every} steps" if done != str(every) else f" for {every} steps"
        found[name] = (f"{seconds:.0f}{steps}" if seconds >= 10 else f"{seconds:.2g}{steps}", f"{memory:.0f}")
    conditions = read_table(COST).caption.split("; ")
    return found, "; ".join(part for part in conditions[1:] if "pair" not in part)


def page(name: str, entry: MethodEntry) -> str:
    """One method: facts, docstrings, sheet, presets, options, training, checkpoints, citation."""
    module, _, cls = entry.implementation.partition(":")
    source = module_source(module)
    parts = [
        f"# {name}",
        _facts(name, entry, module),
        docstring(source),
        _sheet(name),
        "## In the zoo",
        docstring(source, cls),
    ]
    parts += ["## Presets and checkpoints", _tags(name, entry)]
    options = load_registry().options(name)
    parts += ["## Options", _options(options) if options else "None of its own."]
    if entry.training:
        parts += ["## Training", _training(name, entry.training, own=module)]
    for tag, checkpoint in entry.checkpoints.items():
        parts += [f"## Weights of {name}.{tag}", _checkpoint(checkpoint, entry)]
    parts += ["## Citation", f"```bibtex\n{entry.bibtex.strip()}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(name: str, entry: MethodEntry, module: str) -> str:
    kind = entry.taxonomy
    facts = [
        f"**[{entry.title}]({entry.paper})**, {entry.authors}, {entry.year}",
        f"optimises the {'picture' if kind.optimizes == 'image' else 'network'}; styles: {kind.styles}; "
        f"statistics: {kind.statistics}",
        f"file: `{module.replace('.', '/')}.py`",
    ]
    if entry.encoder:
        facts.append(f"features: {load_registry().encoders[entry.encoder].summary} (`{entry.encoder}`)")
    return "\n".join(f"- {fact}" for fact in facts) + f"\n\n```\nzoo info {name}\n```"


def _sheet(name: str) -> str:
    picture = DOCS / "images" / f"{name}.webp"
    return f"![Photographs and styles by {name}](../images/{picture.name})" if picture.exists() else ""


def _tags(name: str, entry: MethodEntry) -> str:
    registry = load_registry()
    rows = []
    for tag in entry.tags:
        resolved = registry.resolve(f"{name}.{tag}")
        changes = ", ".join(f"`{key}={plain(value)}`" for key, value in resolved.options.items())
        default = " (default)" if tag == entry.default else ""
        rows.append((f"`{name}.{tag}`{default}", resolved.summary, changes or "none"))
    return table(["name", "what it is", "options other than the class's defaults"], rows)


def _options(specs: list[OptionSpec]) -> str:
    rows = [(f"`{s.flag}`", readable_type(s.type), s.bounds, f"`{plain(s.default)}`", s.help) for s in specs]
    return table(["option", "type", "range", "default", "meaning"], rows)


def _training(name: str, reference: str, own: str) -> str:
    module, _, cls = reference.partition(":")
    source = module_source(module)
    parts = [
        f"`zoo train {name} --options` lists these options with those of every run: see "
        "[Train your style](../train-your-style.md)."
    ]
    # A task in a file of its own explains itself there.
    if module != own:
        parts.append(docstring(source))
    parts.append(docstring(source, cls))
    specs = describe_source(source, cls, module_source)
    return "\n\n".join([*parts, _options(specs)] if specs else parts)


def _checkpoint(checkpoint: Checkpoint, entry: MethodEntry) -> str:
    origin = checkpoint.provenance
    facts: list[tuple[str, object]] = [
        ("size", f"{checkpoint.bytes / 1e6:.1f} MB, {checkpoint.parameters:,} parameters"),
        ("sha256", f"`{checkpoint.sha256}`"),
        ("licence", checkpoint.license),
        ("from", f"{origin.kind}{f', {origin.repository} {origin.commit}' if origin.repository else ''}"),
        ("data", origin.data),
        ("teacher", origin.teacher),
        ("steps of the last run", origin.steps if origin.steps is None else f"{origin.steps:,}"),
        ("hours of the last run", origin.hours if origin.hours is None else f"{origin.hours:.2f}"),
        ("hours in all", origin.hours_in_all),
        ("hardware", origin.hardware),
    ]
    parts = [checkpoint.summary + ".", table(["", ""], [fact for fact in facts if fact[1]])]
    if checkpoint.file is None:
        parts.append(f"Downloaded from {checkpoint.url}.")
        return "\n\n".join(parts)
    path = PACKAGE / checkpoint.file
    card = path.with_suffix(".md")
    if card.exists():
        parts.append(f"[Its card](../../zoo/checkpoints/{card.name}): command, data, options and held-out figures.")
    if entry.taxonomy.styles != "any":
        metadata = read_metadata(path)
        styles = find_styles(metadata, list(metadata.get("parts", ())) or None).values()
        rows = []
        for style in styles:
            facts_of = style.to_dict()
            what = ", ".join(facts_of[key] for key in ("title", "artist", "year") if facts_of[key])
            rows.append((f"`{facts_of['name']}`", what, facts_of["license"], facts_of["source"]))
        parts += ["Styles it knows:", table(["name", "what it is", "licence", "source"], rows)]
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(write_pages(pages(), "method_pages.py", __doc__))
