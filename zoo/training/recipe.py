"""Recipes: a YAML file that lists every training run of a zoo, each with its share of the hours.

::

    schema: 1
    name: zoo
    runs:
      - {name: wct-1, method: wct, share: 1, task: {level: 1}}
      - {name: wct-2, method: wct, share: 2, task: {level: 2, lower: {run: wct-1}}, train: {steps: 4000}}
      - {name: adain, method: adain, share: 5, init_from: {run: wct-4}}
    join:
      - {name: wct, parts: {level1: wct-1, level2: wct-2}}

Shares are relative: a run's time limit is its share of the sum, times the hours. ``{run: NAME}`` stands for the weights
that an earlier run exported. Runs go into folders of their own under the recipe's; a run that is done (its file
``done.json`` says by which settings) is skipped, one that was broken off is resumed. Recipes that ship live in
``benchmarks/recipes`` of a checkout and in ``zoo/recipes`` of an installed package.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from zoo import files, shipped
from zoo.errors import ConfigError, NumericalError, UnknownNameError, WeightsError, ZooError
from zoo.images import READ_EXTENSIONS
from zoo.names import on_disk
from zoo.training.processes import processes

if TYPE_CHECKING:
    from zoo.training.launch import Material
    from zoo.training.progress import TrainResult, TrainState

_FILES = (*READ_EXTENSIONS, ".json", ".safetensors", ".pt")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
State = Literal["new", "broken off", "done"]


class RecipeDisplay(Protocol):
    """Who hears of the runs: the command line's display."""

    def begin(self, label: str) -> None: ...
    def say(self, text: str) -> None: ...
    def building(self, name: str, done: int, total: int) -> None: ...
    def __call__(self, state: TrainState, /) -> bool: ...
    def ended(self, result: TrainResult) -> None: ...


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Output(_Strict):
    """The weights that another run exported."""

    run: str


class Run(_Strict):
    """One run. ``task`` are options of the method's loss, ``train`` of the run."""

    name: str = Field(pattern=_NAME)
    method: str
    share: float = Field(gt=0)
    task: dict[str, Output | Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    init_from: Output | str | None = None
    notes: str = ""

    @property
    def inputs(self) -> list[str]:
        """Runs whose weights this one reads."""
        values = [*self.task.values(), self.init_from]
        return [value.run for value in values if isinstance(value, Output)]


class Join(_Strict):
    """Several runs' weights in one file NAME.safetensors: ``parts`` gives the run by the prefix of its keys."""

    name: str = Field(pattern=_NAME)
    parts: dict[str, str] = Field(min_length=1)


class Recipe(_Strict):
    """The schema of a recipe's file."""

    version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=_NAME)
    description: str = ""
    runs: list[Run] = Field(min_length=1)
    join: list[Join] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        seen: list[str] = []
        for run in self.runs:
            if run.name in seen:
                raise ValueError(f"runs: {run.name} is listed twice")
            for name in run.inputs:
                if name not in seen:
                    raise ValueError(f"runs: {run.name} needs {name!r}, which is no run before it")
            seen.append(run.name)
        for join in self.join:
            for name in join.parts.values():
                if name not in seen:
                    raise ValueError(f"join: {join.name} needs {name!r}, which is no run")
        return self

    def minutes(self, run: Run, hours: float | None) -> float | None:
        """Time limit of a run: its share of ``hours``; None without a limit."""
        return None if hours is None else 60 * hours * run.share / sum(r.share for r in self.runs)

    def chosen(self, only: Sequence[str]) -> list[Run]:
        """The runs named, in the recipe's order; all where none is."""
        known = [run.name for run in self.runs]
        for name in only:
            if name not in known:
                raise UnknownNameError("run", name, known, f"(recipe {self.name})")
        return [run for run in self.runs if not only or run.name in only]

    def plan(
        self, hours: float | None, only: Sequence[str], folder: Path | None, overrides: Mapping[str, Any]
    ) -> Iterator[tuple[str, ...]]:
        """Rows of the table: name, method, share, minutes, inputs, options, state."""
        total = sum(run.share for run in self.runs)
        for run in self.chosen(only):
            limit = self.minutes(run, hours)
            options = {**run.task, **run.train, **overrides}
            text = ", ".join(f"{k} {v}" for k, v in options.items() if not isinstance(v, Output))
            yield (
                run.name,
                run.method,
                f"{run.share / total:.1%}",
                "-" if limit is None else f"{limit:.1f}",
                ", ".join([*run.inputs, *([run.init_from] if isinstance(run.init_from, str) else [])]),
                text,
                "-" if folder is None else state_of(run, folder),
            )
        for join in self.join:
            yield (join.name, "joined", "", "", ", ".join(join.parts.values()), "", "")


def find_recipe(name: str) -> Path:
    """The file of a recipe that ships, or the path given; UnknownNameError or ConfigError where there is none."""
    return shipped.find("recipes", "recipe", name, ConfigError)


def load_recipe(path: Path) -> Recipe:
    """A recipe's file checked against its schema; ConfigError names the first fault and its place."""
    return shipped.read(path, Recipe, ConfigError)


def state_of(run: Run, folder: Path) -> State:
    """Return how far a run got in the recipe's folder. A run asked to go beyond its old limits counts as broken off."""
    own = folder / run.name
    if (own / "done.json").is_file() and (own / "model.safetensors").is_file():
        return "done"
    return "broken off" if (own / "checkpoint.pt").is_file() else "new"


def run_recipe(
    recipe: Recipe,
    material: Material,
    folder: Path,
    *,
    hours: float | None = None,
    only: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    command: str = "",
    notes: str = "",
    display: RecipeDisplay,
) -> tuple[str, list[str]]:
    """Train the runs in order into ``folder``/NAME, then join. Returns ``done``, or ``asked`` where it was stopped, and
    a sentence on every run that came to nothing: one that diverged, or that needs the weights of such a one.

    ``overrides`` are options of every run. A run that is done is skipped unless more hours or steps are given than it
    was done with; then it goes on. Everything is checked before the first run begins: methods, options, images, and
    that inputs exist or will. Raises what :func:`zoo.training.launch.launch` raises, and ConfigError where a run in
    ``folder`` was begun and ``resume`` is not given, or was done by other settings.
    """
    from zoo.training.data import require_folder
    from zoo.training.launch import launch

    require_folder(folder, "--out", for_weights=True)
    chosen = recipe.chosen(only)
    todo = _checked(recipe, chosen, material, folder, hours, overrides or {}, resume, display)
    lost: dict[str, str] = {}
    for place, (run, task, options) in enumerate(todo, 1):
        settings = options.pop("settings")
        display.begin(f"[{place}/{len(todo)}] {run.name}")
        if needed := next((name for name in run.inputs if name in lost), None):
            lost[run.name] = f"{run.name} was left out: it needs the weights of {needed}."
            continue
        start = run.init_from
        try:
            result = launch(
                run.name,
                task,
                options,
                material,
                folder / run.name,
                resume=resume,
                init_from=None if start is None else Path(_file(start, folder) if isinstance(start, Output) else start),
                command=command,
                notes=" ".join(filter(None, (run.notes, notes))),
                say=display.say,
                building=display.building,
                progress=display,
            )
        except NumericalError as error:
            lost[run.name] = f"{run.name} failed: {error}"
            display.say(lost[run.name])
            continue
        display.ended(result)
        if result.ended == "asked":
            return "asked", [*lost.values()]
        _mark(folder / run.name, settings)
    _join(recipe, folder, {run.name for run in chosen} - lost.keys(), display)
    return "done", [*lost.values()]


def _checked(
    recipe: Recipe,
    chosen: Sequence[Run],
    material: Material,
    folder: Path,
    hours: float | None,
    overrides: Mapping[str, Any],
    resume: bool,
    display: RecipeDisplay,
) -> list[tuple[Run, Any, dict[str, Any]]]:
    """Return the runs that are not done, each with its task and options, when all of them can begin."""
    from zoo.training.data import find_images
    from zoo.training.launch import check_sets, configure, task_class, typed

    todo: list[tuple[Run, Any, dict[str, Any]]] = []
    coming: set[str] = set()
    sets: set[str] = set()
    for run in chosen:
        task = task_class(run.method)
        try:
            options = typed(task, {**run.task, **run.train, **overrides})
            limit = recipe.minutes(run, hours)
            if limit is not None:
                options["time_limit"] = min(limit, options.get("time_limit") or limit)
            settings = _plain(run, options)
            options = {k: _file(v, folder) if isinstance(v, Output) else v for k, v in options.items()}
            _, config = configure(task, options)
        except ZooError as error:
            raise ConfigError(f"Recipe {recipe.name}, run {run.name}: {error}") from error
        # Said in full, so that a run which goes on takes its end from the recipe and not from what it was begun with.
        end = {"steps": config.steps, "time_limit": config.time_limit}
        settings |= end
        options |= end
        check_sets(run.name, task, material, folder / run.name)
        state = _state(run, task, folder, settings)
        if state == "broken off" and not resume:
            raise ConfigError(f"{folder / run.name} holds a run that is not done: add --resume to go on with it.")
        for name in run.inputs:
            if name not in coming and not (folder / name / "model.safetensors").is_file():
                raise ConfigError(f"{run.name} needs the weights of {name}, which {folder} lacks: train that first.")
        coming.add(run.name)
        if state == "done":
            display.say(f"{run.name}: done before")
        else:
            _require_files(run)
            sets.update(task.sets)
            todo.append((run, task, options | {"settings": settings}))
    for name in sorted(sets):
        find_images(material.sets[name])
        material.held_out_files(name)
    return todo


def _require_files(run: Run) -> None:
    """ConfigError for a picture, weights or records that a run names and that are not there."""
    for value in (*run.task.values(), run.init_from):
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and Path(text).suffix.lower() in _FILES and not on_disk(text).is_file():
                raise ConfigError(f"The run {run.name} needs {text}, and there is no such file: check the path.")


def _plain(run: Run, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a run is made by, JSON-ready."""
    shown = {k: {"run": v.run} if isinstance(v, Output) else v for k, v in options.items()}
    return {"method": run.method, **json.loads(json.dumps(shown))}


def _file(output: Output, folder: Path) -> str:
    return str((folder / output.run / "model.safetensors").absolute())


# What may differ between a run that is done and what is asked now: where and how long it runs.
_FREE = ("steps", "time_limit", "accelerator", "precision", "checkpoint_minutes", "preview_every", "log_every")


def _state(run: Run, task: Any, folder: Path, settings: Mapping[str, Any]) -> State:
    state = state_of(run, folder)
    if state != "done":
        return state
    before = json.loads((folder / run.name / "done.json").read_text(encoding="utf-8"))
    # "ended" is what happened, the rest what was asked for.
    ended = before.pop("ended")
    keys = [key for key in {**before, **settings} if key not in _FREE and before.get(key) != settings.get(key)]
    if keys:
        raise ConfigError(
            f"{folder / run.name} was trained with another {', '.join(sorted(keys))}: give another folder or delete it."
        )
    # By time or by steps, whichever came first: more of what ended it means there is more to do.
    if ended == "time":
        more = settings["time_limit"] is None or settings["time_limit"] > before["time_limit"] + 0.01
    else:
        more = settings["steps"] > before["steps"]
    return "broken off" if more else "done"


def _mark(folder: Path, settings: Mapping[str, Any]) -> None:
    """done.json, from what the run recorded itself."""
    if not processes().first:
        return
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    ended = "steps" if record["step"] >= settings["steps"] else "time"
    files.write(folder / "done.json", json.dumps({**settings, "ended": ended}, indent=1))


def _join(recipe: Recipe, folder: Path, chosen: set[str], display: RecipeDisplay) -> None:
    """Each joined file of which a part was chosen and all parts are there."""
    from zoo.training.join import join_checkpoints

    if not processes().first:
        return
    for join in recipe.join:
        files = {prefix: folder / run / "model.safetensors" for prefix, run in join.parts.items()}
        absent = [run for prefix, run in join.parts.items() if not files[prefix].is_file()]
        if not chosen & set(join.parts.values()):
            continue
        if absent:
            display.say(f"{join.name}.safetensors waits for {', '.join(absent)}")
            continue
        try:
            path, card = join_checkpoints(folder / f"{join.name}.safetensors", files)
        except WeightsError as error:
            raise ConfigError(f"Recipe {recipe.name}, join {join.name}: {error}") from error
        display.say(f"Joined: {path}, {card}")


__all__ = [
    "Recipe",
    "RecipeDisplay",
    "find_recipe",
    "load_recipe",
    "run_recipe",
    "state_of",
]
