"""The key of a study and the answers of its judges, read and checked; nothing of a file is believed unseen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from zoo.errors import StudyError

SCHEMA = 1
_JUDGE = re.compile(r"[0-9a-f]{16}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
_LONGEST_NAME = 80
# Three years with one comparison on the screen. Any bound will do: beyond those of a float nothing can be computed.
_LONGEST_SECONDS = 1e8


@dataclass(frozen=True)
class Key:
    """key.json: ``data`` as make.py writes it."""

    path: Path
    data: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Key:
        """StudyError where there is none, or it is not one."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StudyError(
                f"{path} is not there: give the key.json that 'zoo study make' wrote with --key."
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise StudyError(f"{path} cannot be read as the key of a study: restore it.") from error
        needed = {"study", "forms", "trials", "pictures", "questions", "methods", "choices", "pairs", "protocol"}
        if not isinstance(data, dict) or not needed <= data.keys():
            raise StudyError(f"{path} is not the key of a study: give the key.json that 'zoo study make' wrote.")
        if data.get("schema") != SCHEMA:
            raise StudyError(f"{path} was written by another version (schema {data.get('schema')}): make a new study.")
        return cls(path, data)

    @property
    def study(self) -> str:
        """The study's id."""
        return self.data["study"]

    @property
    def trials(self) -> dict[str, dict[str, Any]]:
        """Trials by id."""
        return self.data["trials"]

    @cached_property
    def forms(self) -> list[dict[str, tuple[str, ...]]]:
        """The pictures of every trial in their order, by form and trial."""
        return [{one["trial"]: tuple(one["options"]) for one in form} for form in self.data["forms"]]

    def method(self, picture: str) -> str:
        """The method of a picture."""
        return self.data["pictures"][picture]["method"]


@dataclass(frozen=True)
class Answer:
    """One question about one trial: the picture ``choice`` taken of those shown in ``order``, after ``seconds``."""

    trial: str
    question: str
    choice: str
    order: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Answers:
    """The answers of one judge; ``judge`` is a random id, ``name`` what they call themselves, if anything."""

    judge: str
    name: str
    form: int
    started: str
    ended: str | None
    answers: tuple[Answer, ...]

    @property
    def filename(self) -> str:
        """The name that a served study gives the file."""
        return f"answers-{self.judge}.json"

    def continues(self, other: Answers) -> bool:
        """Return whether these answers hold all of ``other``."""
        return (self.judge, self.form) == (other.judge, other.form) and set(other.answers) <= set(self.answers)


def parse_answers(text: str | bytes, key: Key, where: str) -> Answers:
    """The answers of a file's ``text``; StudyError, which names ``where``, for what this study did not ask."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise StudyError(f"{where} is not JSON: ask the judge for the file as it was saved.") from None
    try:
        return _parsed(data, key)
    except _AnswerError as error:
        raise StudyError(f"{where} does not fit the study: {error}.") from None
    except (KeyError, TypeError, AttributeError):
        raise StudyError(
            f"{where} does not fit the study: it is not a file of answers, or a field is missing."
        ) from None


class _AnswerError(Exception):
    """Says what is wrong with a file."""


def _parsed(data: dict[str, Any], key: Key) -> Answers:
    if data["schema"] != SCHEMA:
        raise _AnswerError("it was written by another version of the page")
    if data["study"] != key.study:
        raise _AnswerError("it answers another study, so another key belongs to it")
    judge, form, name = data["judge"], data["form"], data["name"]
    if not isinstance(judge, str) or not _JUDGE.fullmatch(judge):
        raise _AnswerError("the judge's id is not one that the page gives")
    if not isinstance(form, int) or isinstance(form, bool) or not 0 <= form < len(key.forms):
        raise _AnswerError("there is no such form")
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        raise _AnswerError(f"a judge's name is text of at most {_LONGEST_NAME} characters")
    name = "".join(character if character.isprintable() else " " for character in name)
    if not isinstance(data["answers"], list):
        raise _AnswerError("the answers are no list")
    trials = key.forms[form]
    answers = tuple(_answer(one, trials, key) for one in data["answers"])
    if len({(one.trial, one.question) for one in answers}) < len(answers):
        raise _AnswerError("a question is answered twice")
    return Answers(judge, name, form, _time(data["started"]), _time(data["ended"], none=True) or None, answers)


def _answer(one: dict[str, Any], trials: dict[str, tuple[str, ...]], key: Key) -> Answer:
    trial, question, choice, order, seconds = (one[k] for k in ("trial", "question", "choice", "order", "seconds"))
    if trial not in trials:
        raise _AnswerError("an answer is to a comparison that its form does not have")
    if question not in key.trials[trial]["questions"]:
        raise _AnswerError("an answer is to a question that was not asked")
    if tuple(order) != trials[trial] or choice not in trials[trial]:
        raise _AnswerError("a picture was chosen that was not shown, or not in this order")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST_SECONDS:
        raise _AnswerError("a time is not a number of seconds")
    return Answer(trial, question, choice, tuple(order), float(seconds))


def _time(text: Any, none: bool = False) -> str:
    if none and text is None:
        return ""
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise _AnswerError("a date is not one that the page writes")
    return text


def read_answers(sources: Sequence[Path], key: Key, refused: list[str] | None = None) -> list[Answers]:
    """Every judge's answers from files, and from folders of ``.json`` files, in the order of the judges' ids.

    Of several files of one judge the one that continues the others counts. A file that cannot be read or does not fit
    the study is left out, as are all of a judge whose files contradict each other; a sentence about each is added to
    ``refused``, and without that list it is a StudyError. StudyError where nothing is left.
    """
    found: dict[str, tuple[Path, Answers]] = {}
    contrary: dict[str, str] = {}
    said: list[str] = []
    for path in _files(sources, key):
        try:
            one = _read(path, key)
        except StudyError as error:
            said.append(str(error))
            continue
        earlier = found.get(one.judge)
        if earlier is None or one.continues(earlier[1]):
            found[one.judge] = (path, one)
        elif not earlier[1].continues(one):
            contrary[one.judge] = f"{earlier[0]} and {path} are of one judge and differ: keep the right one."
    said += contrary.values()
    if said and refused is None:
        raise StudyError(said[0])
    kept = [found[judge][1] for judge in sorted(found) if judge not in contrary]
    if not kept and said:
        raise StudyError(f"No file of answers can be used. {said[0]}")
    if not kept:
        raise StudyError("There are no answers: give the files that judges saved, or the folder that holds them.")
    if refused is not None:
        refused += said
    return kept


def _read(path: Path, key: Key) -> Answers:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StudyError(f"{path} cannot be read: {error.strerror}.") from error
    return parse_answers(text, key, str(path))


def _files(sources: Iterable[Path], key: Key) -> list[Path]:
    found: list[Path] = []
    for source in sources:
        inside = sorted(source.glob("*.json")) if source.is_dir() else [source]
        # The key may lie beside the answers.
        found += [path for path in inside if path.resolve() != key.path.resolve()]
    return list(dict.fromkeys(found))
