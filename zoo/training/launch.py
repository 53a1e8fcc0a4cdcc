"""From names and folders to a training run: what ``zoo train`` and ``zoo recipe`` share.

A method is named as in the registry, whose entry says ``training: module:Class``, or by that import path itself, for a
task that no registered method has yet.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zoo import images
from zoo.config import Config, OptionSpec, describe, parse
from zoo.errors import ConfigError, RegistryError, UnknownNameError
from zoo.extras import need
from zoo.registry import import_object, load_registry
from zoo.training.data import ImageSet, require_folder, short_path
from zoo.training.identity import derived_seed
from zoo.training.processes import processes
from zoo.training.progress import TrainProgress, TrainResult
from zoo.training.records import read_run
from zoo.training.task import TrainConfig, TrainingTask, check_crop
from zoo.training.trainer import train
from zoo.words import counted

Say = Callable[[str], None]
_NAMED = 5  # of the files that cannot be read: enough to see what is wrong with them


@dataclass(frozen=True)
class Material:
    """The images of a run: folders, files or lists by set, to train on and to evaluate on.

    ``held_out_size`` is a size policy (``long:512``), ``held_out_count`` the first so many of each set (0: all),
    ``cache_dir`` where decoded images are kept.
    """

    sets: Mapping[str, Sequence[str]]
    held_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    held_out_size: str = "long:512"
    held_out_count: int = 0
    cache_dir: Path | None = None

    def held_out_files(self, name: str) -> list[Path]:
        """The held-out images of a set; ImageError where one does not exist."""
        return images.list_images(self.held_out.get(name, ()))[: self.held_out_count or None]


def trainable() -> list[str]:
    """Names of the registered methods that have a training task."""
    return sorted(name for name, entry in load_registry().methods.items() if entry.training)


def task_class(method: str) -> type[TrainingTask]:
    """The task of a registered method, or of an import path ``module:Class``.

    UnknownNameError for another name, ConfigError for a method that is not trained, RegistryError for what cannot be
    imported or is no task.
    """
    if ":" in method:
        reference = method
    else:
        registry = load_registry()
        if method not in registry.methods:
            raise UnknownNameError("method", method, registry.methods, _choices())
        named = registry.methods[method].training
        if named is None:
            raise ConfigError(f"{method} is not trained, it works as it is. {_choices()}")
        reference = named
    found = import_object(reference)
    if not (isinstance(found, type) and issubclass(found, TrainingTask)):
        raise RegistryError(f"{reference} is not a TrainingTask.")
    return found


def _choices() -> str:
    names = trainable()
    return f"Methods that can be trained: {', '.join(names)}." if names else "No registered method can be trained."


def option_specs(task: type[TrainingTask]) -> tuple[list[OptionSpec], list[OptionSpec]]:
    """The task's own options, and those of every run with this task's defaults."""
    own = describe(task.Config)
    names = {spec.name for spec in own}
    return own, [
        OptionSpec(s.name, s.type, getattr(task.defaults, s.name), s.help, s.bounds)
        for s in describe(TrainConfig)
        if s.name not in names
    ]


def configure(task: type[TrainingTask], options: Mapping[str, Any]) -> tuple[Config, TrainConfig]:
    """Options by name, the task's and the run's mixed, as the two configurations; ConfigError as in ``Config.make``."""
    own = {spec.name for spec in describe(task.Config)}
    config = task.Config.make({k: v for k, v in options.items() if k in own})
    defaults = {name: getattr(task.defaults, name) for name in TrainConfig.__dataclass_fields__}
    return config, TrainConfig.make(defaults | {k: v for k, v in options.items() if k not in own})


def typed(task: type[TrainingTask], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, the task's and the run's mixed, with text (of a command line, or ``1e-4`` in a recipe) as a
    value of the option's type, so that two can be compared. Unknown names stay for :func:`configure` to refuse.
    ConfigError where text is no such value."""
    hints = {**typing.get_type_hints(TrainConfig), **typing.get_type_hints(task.Config)}
    named = {raw.replace("-", "_"): value for raw, value in options.items()}
    return {
        name: parse(name, hints[name], value) if name in hints and isinstance(value, str) else value
        for name, value in named.items()
    }


def _begun_with(task: type[TrainingTask], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options in a run's record, the task's and the run's mixed."""
    own, general = option_specs(task)
    found: dict[str, Any] = {}
    for specs, options in ((general, record.get("config", {})), (own, record.get("options", {}))):
        found |= {spec.name: options[spec.name] for spec in specs if spec.name in options}
    return found


def check_sets(label: str, task: type[TrainingTask], material: Material, folder: Path) -> None:
    """ConfigError that names the sets which ``task`` needs and ``material`` lacks, or one in whose folder the run's
    ``folder`` lies, where previews would be taken for images."""
    missing = [name for name in task.sets if not material.sets.get(name)]
    if missing:
        flags = " and ".join(f"--{name}-dir FOLDER" for name in missing)
        raise ConfigError(f"Training {label} needs {' and '.join(missing)} images: give {flags}.")
    for name in task.sets:
        places = [Path(source).resolve() for source in material.sets[name] if os.path.isdir(source)]
        if any(folder.resolve().is_relative_to(place) for place in places):
            raise ConfigError(
                f"--out {folder} lies in the folder of {name} images, so that its previews would be some of them: "
                "give another."
            )


def launch(
    label: str,
    task: type[TrainingTask],
    options: Mapping[str, Any],
    material: Material,
    folder: Path,
    *,
    resume: bool = False,
    init_from: Path | None = None,
    command: str = "",
    notes: str = "",
    say: Say | None = None,
    building: Callable[[str, int, int], None] | None = None,
    progress: TrainProgress | None = None,
) -> TrainResult:
    """Check everything that can be checked, then read the images, build the task and train it into ``folder``.

    ``say`` hears one sentence per set (how many images, which cannot be read), ``building`` (set, done, of how many)
    while images are decoded for the first time. With ``resume``, options that are not named are those that the run in
    ``folder`` was begun with, and the card keeps the command by which it was begun. The seed decides the task's random
    start values too. Raises what :func:`configure`, :func:`check_sets`, :func:`zoo.training.data.require_folder` and
    :func:`zoo.training.train` raise.
    """
    say = say or (lambda text: None)
    need("train", "lightning_fabric", "matplotlib")
    processes()  # before the images are read
    options = typed(task, options)
    if resume:
        begun = read_run(folder)
        options = _begun_with(task, begun) | options
        command = begun.get("command") or command
        notes = notes or begun.get("notes", "")
        init_from = init_from or (Path(begun["init_from"]) if begun.get("init_from") else None)
    task_config, config = configure(task, options)
    check_sets(label, task, material, folder)
    require_folder(folder, "--out", for_weights=True)
    saved = (folder / "checkpoint.pt").exists()
    if saved and not resume:
        raise ConfigError(f"{folder} already holds a run: add --resume to go on with it, or give another folder.")
    if init_from is not None and not saved and not init_from.is_file():
        raise ConfigError(f"There is no file {init_from} to start from: check the path.")
    paths = {name: material.held_out_files(name) for name, sources in material.held_out.items() if sources}
    held_out = {
        name: [images.read(path, size=material.held_out_size).pixels for path in some] for name, some in paths.items()
    }
    make: Any = task
    # All that is random before the first step is drawn on the CPU; the caller's state comes back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(config.seed, "start"))
        built: TrainingTask = make(task_config)
    check_crop(built, config)
    data = {}
    for name in task.sets:
        heard = None if building is None else lambda done, total, name=name: building(name, done, total)
        data[name] = ImageSet.open(
            material.sets[name], store=config.store, cache_dir=material.cache_dir, progress=heard
        )
        say(describe_images(name, data[name]))
        trained_on = [str(path) for path in paths.get(name, ()) if data[name].holds(path)]
        if trained_on:
            raise ConfigError(
                f"Held-out images are among the {name} images, and figures of them would tell nothing: take "
                f"{', '.join(trained_on[:_NAMED])} out of one of the two."
            )
    return train(
        built,
        config,
        data,
        folder,
        held_out=held_out,
        resume=resume,
        init_from=init_from,
        options=task_config.to_dict(),
        command=command,
        notes=notes,
        progress=progress,
    )


def describe_images(name: str, data: ImageSet) -> str:
    """``content: 1,200 images; 2 cannot be read and are left out: a.jpg (damaged), b.png (...)``."""
    text = f"{name}: {counted(len(data), 'image')}"
    if not data.skipped:
        return text
    named = ", ".join(f"{Path(path).name} ({reason.rstrip('.')})" for path, reason in data.skipped[:_NAMED])
    more = f" and {len(data.skipped) - _NAMED} more" if len(data.skipped) > _NAMED else ""
    return f"{text}; {len(data.skipped)} cannot be read and are left out: {named}{more}"


def portable(argument: str) -> str:
    """Return an argument as a card shows it: of a path only the last two names. ``a=PATH`` and lists by commas too."""
    key, equals, value = argument.rpartition("=")
    if "/" in key:
        # The equals sign is part of a path.
        key, equals, value = "", "", argument
    if "://" in value:
        return argument
    parts = [value] if os.path.exists(value) else value.split(",")
    return key + equals + ",".join(short_path(part) if _is_path(part) else part for part in parts)


def _is_path(text: str) -> bool:
    """Return whether it looks like a path with folders in it; words with a slash among them, such as notes, do not."""
    return "/" in text and (" " not in text or text.startswith("/") or os.path.exists(text))
