"""From names and folders to a training run: what ``zoo train``, recipes and ``python -m zoo.training`` share.

A method is named as in the registry, whose entry says ``training: module:Class``, or by that import path itself, for a
task that no registered method has yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo import images
from zoo.config import Config, OptionSpec, describe
from zoo.errors import ConfigError, RegistryError, UnknownNameError
from zoo.registry import import_object, load_registry
from zoo.training.data import ImageSet
from zoo.training.task import TrainConfig, TrainingTask
from zoo.training.trainer import TrainProgress, TrainResult, train

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


def check_sets(label: str, task: type[TrainingTask], material: Material) -> None:
    """ConfigError that names the sets which ``task`` needs and ``material`` lacks."""
    missing = [name for name in task.sets if not material.sets.get(name)]
    if missing:
        flags = " and ".join(f"--{name}-dir FOLDER" for name in missing)
        raise ConfigError(f"Training {label} needs {' and '.join(missing)} images: give {flags}.")


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
    while images are decoded for the first time. Raises what :func:`configure`, :func:`check_sets` and
    :func:`zoo.training.train` raise.
    """
    say = say or (lambda text: None)
    task_config, config = configure(task, options)
    check_sets(label, task, material)
    if not resume and (folder / "checkpoint.pt").exists():
        raise ConfigError(f"{folder} already holds a run: add --resume to go on with it, or give another folder.")
    if init_from is not None and not init_from.is_file():
        raise ConfigError(f"There is no file {init_from} to start from: check the path.")
    data = {}
    for name in task.sets:
        heard = None if building is None else lambda done, total, name=name: building(name, done, total)
        data[name] = ImageSet.open(
            material.sets[name], store=config.store, cache_dir=material.cache_dir, progress=heard
        )
        say(describe_images(name, data[name]))
    held_out = {name: _read_held_out(source, material) for name, source in material.held_out.items() if source}
    built: Any = task
    return train(
        built(task_config),
        config,
        data,
        folder,
        held_out=held_out,
        resume=resume,
        init_from=init_from,
        command=command,
        notes=notes,
        progress=progress,
    )


def describe_images(name: str, data: ImageSet) -> str:
    """``content: 1,200 images; 2 cannot be read and are left out: a.jpg (damaged), b.png (...)``."""
    text = f"{name}: {len(data):,} images"
    if not data.skipped:
        return text
    named = ", ".join(f"{Path(path).name} ({reason.rstrip('.')})" for path, reason in data.skipped[:_NAMED])
    more = f" and {len(data.skipped) - _NAMED} more" if len(data.skipped) > _NAMED else ""
    return f"{text}; {len(data.skipped)} cannot be read and are left out: {named}{more}"


def _read_held_out(sources: Sequence[str], material: Material) -> list[Tensor]:
    paths = images.list_images(sources)[: material.held_out_count or None]
    return [images.read(path, size=material.held_out_size).pixels for path in paths]


def portable(argument: str) -> str:
    """An argument as a card shows it: paths by their last name, since a folder of this machine means nothing there."""
    key, equals, value = argument.rpartition("=")
    if "/" not in value or " " in value:
        return argument
    return key + equals + ",".join(Path(part).name for part in value.split(","))
