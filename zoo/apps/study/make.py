"""``zoo study make``: the folder that judges are sent, and the key that stays with who asks.

OUT/send/index.html      the page, whole: it opens from a disk and asks nothing of any network
OUT/send/pictures/       the pictures, written anew without any metadata under names that say nothing
OUT/key.json             which picture is of which method, which trial is a check: not to be sent
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import files
from zoo.apps.study.design import PHOTOGRAPH, STYLE, Design, make_design
from zoo.apps.study.questions import QUESTIONS, asked_in_checks, questions
from zoo.bench.folder import Folder
from zoo.bench.plan import Cell
from zoo.bench.rows import latest, read_rows, utc_now
from zoo.errors import ConfigError, ImageError, StudyError, UnknownNameError
from zoo.report.tables import read_run

SCHEMA = 1
_PAGE = Path(__file__).with_name("page")
_QUALITY = 95
_LARGEST_WEBP = 16_383
# Roles of the pictures beside the methods' own; each is written once for itself and once as a choice in a check, so
# that a check cannot be told by the names of its files.
_ROLES = ("content", "style")


@dataclass(frozen=True)
class StudyOptions:
    """Options of a study; None takes the default that each line names.

    ``questions`` in the order of the tables; ``choices`` pictures are shown at a time; ``per_judge`` judgements at most
    in a form; ``judges`` expected, and at least as many forms; ``checks`` and ``repeats`` per form; ``methods`` by
    label (all of the run); ``pairs`` of content and style (all), or ``sample`` of them drawn; ``size`` (the largest);
    ``strength`` (1, or the largest); ``seed`` of everything drawn (a new one, kept in the key); ``lossless`` pictures.
    """

    questions: tuple[str, ...] = tuple(QUESTIONS)
    choices: int = 2
    per_judge: int = 30
    judges: int = 20
    checks: int = 4
    repeats: int = 3
    methods: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    sample: int | None = None
    size: int | None = None
    strength: float | None = None
    seed: int | None = None
    lossless: bool = False


@dataclass(frozen=True)
class Made:
    """A written study: the ``page`` to open, the ``key``, how many ``forms``, how many of them are one balanced
    ``round``, the questions that the longest form asks, and what must be said."""

    page: Path
    key: Path
    forms: int
    round: int
    longest: int
    said: tuple[str, ...]


def make_study(run: Path, out: Path, options: StudyOptions | None = None) -> Made:
    """Write a study of the pictures of results folder ``run`` into ``out``, which must not exist or be empty.

    Raises ProtocolError where nothing was measured in ``run``, StudyError where its pictures are missing or ``out``
    cannot be written, ConfigError and UnknownNameError for options that do not fit the run.
    """
    options = options or StudyOptions()
    asked = questions(options.questions)
    if not asked:
        raise ConfigError(f"A study asks at least one of: {', '.join(QUESTIONS)}.")
    # The folder is moved into place whole, which the one that the user stands in (no name) could not be.
    if not out.name or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise StudyError(f"{out} is no new folder, and a study is never overwritten: choose another --out.")
    seed = secrets.randbits(63) if options.seed is None else options.seed
    source = _Source.of(run, options, seed)
    design = make_design(
        len(source.methods),
        len(source.pairs),
        choices=options.choices,
        per_judge=options.per_judge,
        judges=options.judges,
        checks=options.checks,
        repeats=options.repeats,
        seed=seed,
    )
    names = tuple(question.name for question in asked)
    key = _key(source, design, names, options.choices, seed)
    with files.new_folder(out, StudyError) as building:
        (building / "send" / "pictures").mkdir(parents=True)
        for identity, path in sorted(source.files(key).items()):
            _write_picture(path, building / "send" / "pictures" / f"{identity}.webp", options.lossless)
        (building / "send" / "index.html").write_text(page(key), encoding="utf-8")
        (building / "key.json").write_text(json.dumps(key, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    longest = max(sum(len(key["trials"][one["trial"]]["questions"]) for one in form) for form in key["forms"])
    target = out / "send" / "index.html"
    return Made(target, out / "key.json", len(design.forms), design.round_length, longest, tuple(source.said))


@dataclass(frozen=True)
class _Source:
    """The pictures of a run that a study is made of: methods by label, pairs for which every method has a picture."""

    folder: Folder
    protocol: str
    methods: list[str]
    pairs: list[tuple[str, str]]
    size: int
    seed: int
    strength: float
    said: list[str]

    @classmethod
    def of(cls, run: Path, options: StudyOptions, seed: int) -> _Source:
        folder = Folder(run)
        run_file = read_run(folder)
        resolved = run_file["protocol"]["resolved"]
        rows = latest(read_rows(folder.rows))
        measured = [name for name in dict.fromkeys(row.method for row in rows) if name not in resolved["baselines"]]
        methods = _chosen("method", options.methods, measured)
        pairs = [(content, style) for content, style in resolved["pairs"]]
        for pair in options.pairs:
            if pair not in pairs:
                known = [f"{content}:{style}" for content, style in pairs]
                raise UnknownNameError("pair", f"{pair[0]}:{pair[1]}", known)
        size = _value("size", options.size, resolved["sizes"], max(resolved["sizes"]))
        strengths = resolved["strengths"]
        strength = _value("strength", options.strength, strengths, 1.0 if 1.0 in strengths else max(strengths))
        found = cls(folder, run_file["protocol"]["id"], methods, [], size, resolved["seeds"][0], strength, [])
        found._find(list(dict.fromkeys(options.pairs)) or pairs)
        if options.sample is not None and options.sample < len(found.pairs):
            found.pairs[:] = random.Random(seed).sample(found.pairs, options.sample)
        return found

    def _find(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Keep the pairs for which every picture is there."""
        lost: dict[str, list[str]] = {}
        for pair in pairs:
            needed = {method: self.output(method, pair) for method in self.methods}
            needed |= {f"{role} {name}": self.input(role, name) for role, name in zip(_ROLES, pair, strict=True)}
            missing = [name for name, path in needed.items() if not path.exists()]
            for name in missing:
                lost.setdefault(name, []).append(" x ".join(pair))
            if not missing:
                self.pairs.append(pair)
        if not self.pairs:
            first = next(iter(lost))
            raise StudyError(
                f"{self.folder.path} has no pair with the pictures of all {len(self.methods)} methods at size "
                f"{self.size} ({first} has none for {lost[first][0]}): the same 'zoo bench' command makes pictures "
                "again, or name the methods that have them."
            )
        for name, where in lost.items():
            self.said.append(f"Left out, without a picture of {name}: {', '.join(where)}.")

    def output(self, method: str, pair: tuple[str, str]) -> Path:
        """A method's picture."""
        return self.folder.output(Cell(method, *pair, self.size, self.seed, self.strength))

    def input(self, role: str, name: str) -> Path:
        """A prepared content or style."""
        return self.folder.input(role, name, self.size)

    def files(self, key: dict[str, Any]) -> dict[str, Path]:
        """The file of the run behind every picture of the key."""
        return {
            identity: self.output(one["method"], (one["content"], one["style"]))
            if one["role"] == "output"
            else self.input(one["role"], one[one["role"]])
            for identity, one in key["pictures"].items()
        }


def _chosen(kind: str, wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    for name in wanted:
        if name not in known:
            raise UnknownNameError(kind, name, known)
    return list(dict.fromkeys(wanted)) or list(known)


def _value(name: str, wanted: Any, known: Sequence[Any], default: Any) -> Any:
    if wanted is not None and wanted not in known:
        raise ConfigError(f"The run has no {name} {wanted:g}: it has {', '.join(f'{one:g}' for one in known)}.")
    return default if wanted is None else wanted


def _key(source: _Source, design: Design, names: tuple[str, ...], choices: int, seed: int) -> dict[str, Any]:
    """Everything there is to know of a study; the page is what is left of it without the secrets."""
    draw = random.Random(f"names {seed}")
    used: set[str] = set()

    def identity() -> str:
        while (found := f"{draw.getrandbits(48):012x}") in used:
            pass
        used.add(found)
        return found

    pictures: dict[str, dict[str, Any]] = {}
    place: dict[tuple[int, int], str] = {}
    shown: dict[tuple[str, str], str] = {}
    for item, (content, style) in enumerate(source.pairs):
        for role, name, option in (("content", content, PHOTOGRAPH), ("style", style, STYLE)):
            if (role, name) not in shown:
                shown[role, name] = identity()
                pictures[shown[role, name]] = {"role": role, role: name}
            place[item, option] = identity()
            pictures[place[item, option]] = {"role": role, role: name}
        for number, method in enumerate(source.methods):
            place[item, number] = identity()
            pictures[place[item, number]] = {"role": "output", "method": method, "content": content, "style": style}
    trials: dict[str, dict[str, Any]] = {}
    forms = []
    for form in design.forms:
        identities = [identity() for _ in form]
        for trial, own in zip(form, identities, strict=True):
            content, style = source.pairs[trial.item]
            asked = asked_in_checks(names) if trial.kind == "check" else names
            entry: dict[str, Any] = {"kind": trial.kind, "content": content, "style": style, "questions": list(asked)}
            if trial.kind == "check":
                right = {"content": PHOTOGRAPH, "style": STYLE}
                entry["right"] = {name: place[trial.item, right[QUESTIONS[name].right or ""]] for name in asked}
            if trial.source is not None:
                entry["of"] = identities[trial.source]
            trials[own] = entry
        forms.append(
            [
                {
                    "trial": own,
                    "content": shown["content", source.pairs[trial.item][0]],
                    "style": shown["style", source.pairs[trial.item][1]],
                    "options": [place[trial.item, option] for option in trial.options],
                }
                for trial, own in zip(form, identities, strict=True)
            ]
        )
    return {
        "schema": SCHEMA,
        "study": identity(),
        "made": utc_now(),
        "protocol": source.protocol,
        "size": source.size,
        "run_seed": source.seed,
        "strength": source.strength,
        "seed": seed,
        "choices": choices,
        "round": design.round_length,
        "questions": list(names),
        "methods": source.methods,
        "pairs": [list(pair) for pair in source.pairs],
        "pictures": _kept(pictures, forms),
        "trials": trials,
        "forms": forms,
    }


def _kept(pictures: dict[str, dict[str, Any]], forms: list[list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The pictures that some form shows, in the order of their names, which is no order of methods."""
    used = {name for form in forms for one in form for name in (one["content"], one["style"], *one["options"])}
    return {name: pictures[name] for name in sorted(used)}


def page(key: dict[str, Any]) -> str:
    """index.html: the page with the study in it, without what its judges must not know."""
    import jinja2

    asked = {name for trial in key["trials"].values() for name in trial["questions"]}
    study = {
        "id": key["study"],
        "questions": [name for name in QUESTIONS if name in asked],
        "texts": {name: QUESTIONS[name].text(key["choices"]) for name in QUESTIONS if name in asked},
        "forms": [
            [{**one, "questions": key["trials"][one["trial"]]["questions"]} for one in form] for form in key["forms"]
        ],
    }
    text = json.dumps(study, ensure_ascii=False, separators=(",", ":"))
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((_PAGE / "template.html").read_text(encoding="utf-8"))
    return template.render(
        style=(_PAGE / "style.css").read_text(encoding="utf-8"),
        script=(_PAGE / "script.js").read_text(encoding="utf-8"),
        # No "<", so that nothing can end the script element.
        study=text.replace("<", "\\u003c"),
        many=key["choices"] > 2,
        choices=key["choices"],
    )


def _write_picture(source: Path, target: Path, lossless: bool) -> None:
    """The pixels alone, as WebP: made from an array, the new file knows nothing of the old one's name or text."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(source) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise ImageError(f"{source} cannot be read ({error}): 'zoo bench --again' makes it anew.") from error
    if max(pixels.shape) > _LARGEST_WEBP:
        raise ImageError(
            f"{source} has a side above {_LARGEST_WEBP} pixels, more than a study shows: take a size below."
        )
    Image.fromarray(pixels).save(target, "WEBP", quality=_QUALITY, lossless=lossless, method=4)
