"""A small study and judges whose preferences are known, for the tests of ``zoo study``."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from report_runs import write_run

from zoo.apps.study import StudyOptions, make_study
from zoo.apps.study.answers import Answers, Key, parse_answers

CONTENTS = ("harbour", "portrait", "fox")
STYLES = ("waves", "tiles", "ink")
# Of a trial, its pictures and the question: the one that is chosen.
Choice = Callable[[dict[str, Any], list[str], str], str]


def make(folder: Path, **options: Any) -> Key:
    """The study of a synthetic run in ``folder`` (made there if it is not): three methods on nine pairs."""
    run = folder / "run"
    if not run.exists():
        write_run(run, contents=CONTENTS, styles=STYLES)
    made = make_study(run, folder / "study", StudyOptions(**{"seed": 1, "per_judge": 10, "judges": 12, **options}))
    return Key.read(made.key)


def by_strength(key: Key, strength: Mapping[str, float], seed: int = 0) -> Choice:
    """Checks answered right; of other pictures one by chance, as Bradley and Terry say."""
    draw = random.Random(seed)

    def choose(trial: dict[str, Any], pictures: list[str], question: str) -> str:
        if trial["kind"] == "check":
            return trial["right"][question]
        return draw.choices(pictures, [strength[key.method(picture)] for picture in pictures])[0]

    return choose


def first_shown(trial: dict[str, Any], pictures: list[str], question: str) -> str:
    """Somebody who never looks."""
    return pictures[0]


def answer(key: Key, form: int, choose: Choice, *, judge: int = 0, keep: int | None = None) -> dict[str, Any]:
    """The file of a judge of this form, his first ``keep`` answers."""
    answers = []
    for one in key.data["forms"][form]:
        trial = key.trials[one["trial"]]
        for question in trial["questions"]:
            choice = choose(trial, one["options"], question)
            answers.append(
                {"trial": one["trial"], "question": question, "choice": choice, "order": one["options"], "seconds": 2.5}
            )
    return {
        "schema": 1,
        "study": key.study,
        "judge": f"{judge or form + 1:016x}",
        "name": "Ada",
        "form": form,
        "started": "2026-01-02T03:04:05.678Z",
        "ended": "2026-01-02T03:14:05.678Z" if keep is None else None,
        "answers": answers[:keep],
    }


def parsed(key: Key, data: dict[str, Any]) -> Answers:
    """The file as the zoo reads it."""
    return parse_answers(json.dumps(data), key, "the file")


def panel(key: Key, choose: Choice) -> list[Answers]:
    """One judge per form, all of one mind."""
    return [parsed(key, answer(key, form, choose)) for form in range(len(key.forms))]
