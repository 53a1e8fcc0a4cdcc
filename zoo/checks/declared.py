"""What the file declares: options and traits."""

from __future__ import annotations

import dataclasses
import inspect
import json
import typing
from pathlib import Path
from typing import Literal

from zoo.checks.core import ContractError, NotApplicableError, Subject, check, refused, require
from zoo.config import Config, describe, describe_source
from zoo.errors import ConfigError
from zoo.modules import module_source
from zoo.stylizer import Traits


@check("config", "Options are frozen, documented, and go through text and JSON unchanged.")
def _config(s: Subject) -> None:
    cls = s.model.Config
    require(
        dataclasses.is_dataclass(cls) and issubclass(cls, Config),
        "Config must be a dataclass derived from zoo.config.Config",
    )
    default = cls()
    for spec in describe(cls):
        require(len(spec.help.split()) >= 2, f"option {spec.name} has no help text")
        value = getattr(default, spec.name)
        try:
            setattr(default, spec.name, value)
        except dataclasses.FrozenInstanceError:
            pass
        else:
            raise ContractError("Config is not frozen")
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        parsed = cls.make({spec.name: "none" if value is None else text})
        require(getattr(parsed, spec.name) == value, f"option {spec.name} changes when written as text")
    require(cls.make(json.loads(json.dumps(default.to_dict()))) == default, "options change through JSON")
    with refused("an unknown option", ConfigError):
        cls.make({"no_such_option": 1})


@check("config-source", "The options read from the file's text, as 'zoo info' shows them, are those of the class.")
def _config_source(s: Subject) -> None:
    cls = type(s.model)
    path = inspect.getsourcefile(cls)
    if path is None:
        raise NotApplicableError("the class comes from no file")
    written = describe_source(Path(path).read_text(encoding="utf-8"), cls.__name__, module_source)
    actual = describe(cls.Config)
    for spec in actual:
        require(spec in written, f"option {spec.name} is not declared as 'name: type = option(...)' beside the class")
    require(written == actual, f"the file declares {[o.name for o in written]}, the class {[o.name for o in actual]}")


@check("traits", "Traits hold the documented values.")
def _traits(s: Subject) -> None:
    for name, hint in typing.get_type_hints(Traits).items():
        value = getattr(s.traits, name)
        if typing.get_origin(hint) is Literal:
            require(value in typing.get_args(hint), f"{name} is {value!r}, not one of {typing.get_args(hint)}")
        else:
            wanted = typing.get_origin(hint) or hint
            require(type(value) is wanted, f"{name} is {value!r}, not of type {wanted.__name__}")
    require(s.traits.styles == "any" or len(s.model.style_names) > 0, "trained styles, but style_names is empty")
    if s.traits.strength == "blend":
        require(s.traits.strength_zero == "content", "a blend of strength 0 is the content")
