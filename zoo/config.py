"""Typed, frozen options of a method, declared once and read three ways.

A method declares::

    @dataclass(frozen=True)
    class GatysConfig(Config):
        num_steps: int = option(500, "Evaluations of loss and gradient.", ge=1)

and from that come the keyword arguments of ``zoo.load``, the flags of the command line (``--num-steps``) and the
table of ``zoo info``. The last must not import torch, so :func:`describe_source` reads the same declarations from
the file's syntax tree; defaults and bounds are therefore written as literals.

Types understood: ``bool``, ``int``, ``float``, ``str``, ``Literal[...]``, ``tuple[T, ...]`` and any of them ``| None``.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import inspect
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from zoo.errors import ConfigError, RegistryError

_BOUNDS = ("ge", "gt", "le", "lt")


def option(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A dataclass field with its help text and bounds; bounds hold for every element of a tuple."""
    return field(default=default, metadata={"help": help, "ge": ge, "gt": gt, "le": le, "lt": lt})


@dataclass(frozen=True)
class OptionSpec:
    """One option as people read it: its name, type as written, default, help and bounds such as ``>= 1``."""

    name: str
    type: str
    default: Any
    help: str
    bounds: str = ""

    @property
    def flag(self) -> str:
        """The command line's spelling: ``num_steps`` is ``--num-steps``."""
        return "--" + self.name.replace("_", "-")


@dataclass(frozen=True)
class Config:
    """Base of every method's options. Construction checks each value's type and range (:class:`ConfigError`)."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for item in dataclasses.fields(self):
            value = _checked(item.name, hints[item.name], getattr(self, item.name))
            object.__setattr__(self, item.name, value)
            _check_bounds(item.name, value, item.metadata)
        self.validate()

    def validate(self) -> None:
        """Rules that tie several options together; raise :class:`ConfigError`. Overridden where there are any."""

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """A configuration from names and values; text values (from a command line) are converted to the field's type.

        Raises ConfigError for an unknown name (with the nearest known one), a value of another type or out of range.
        """
        hints = typing.get_type_hints(cls)
        known = {item.name for item in dataclasses.fields(cls)}
        values = {}
        for raw, value in options.items():
            name = raw.replace("-", "_")
            if name not in known:
                close = difflib.get_close_matches(name, sorted(known), n=1)
                advice = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(sorted(known))}."
                raise ConfigError(f"Unknown option {name!r} for {cls.__name__}: {advice}")
            values[name] = parse(name, hints[name], value) if isinstance(value, str) else value
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Options by name, JSON-ready (tuples become lists)."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @property
    def digest(self) -> str:
        """Twelve hex digits that identify these options."""
        return hashlib.sha256(json.dumps([type(self).__name__, self.to_dict()]).encode()).hexdigest()[:12]


def _union_members(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _describe(hint: Any) -> str:
    if hint is type(None):
        return "none"
    origin = typing.get_origin(hint)
    if origin is Literal:
        return " | ".join(str(a) for a in typing.get_args(hint))
    if origin is tuple:
        return f"list of {_describe(typing.get_args(hint)[0])}"
    members = _union_members(hint)
    if len(members) > 1:
        return " or ".join(_describe(m) for m in members)
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(hint, str(hint))


def _matches(hint: Any, value: Any) -> tuple[bool, Any]:
    """Whether ``value`` is of type ``hint``, and the value as stored (ints widen to float, lists become tuples)."""
    origin = typing.get_origin(hint)
    if hint is type(None):
        return value is None, value
    if origin is Literal:
        return value in typing.get_args(hint), value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False, value
        pairs = [_matches(typing.get_args(hint)[0], v) for v in value]
        return all(ok for ok, _ in pairs), tuple(v for _, v in pairs)
    if hint is float:
        ok = isinstance(value, int | float) and not isinstance(value, bool)
        return ok, float(value) if ok else value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value


def _checked(name: str, hint: Any, value: Any) -> Any:
    for member in _union_members(hint):
        ok, stored = _matches(member, value)
        if ok:
            return stored
    raise ConfigError(f"Option {name!r} must be {_describe(hint)}, not {value!r}.")


def _check_bounds(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    for item in value if isinstance(value, tuple) else (value,):
        if not isinstance(item, int | float) or isinstance(item, bool):
            continue
        ge, gt, le, lt = (metadata.get(b) for b in _BOUNDS)
        fine = (
            math.isfinite(item)
            and (ge is None or item >= ge)
            and (gt is None or item > gt)
            and (le is None or item <= le)
            and (lt is None or item < lt)
        )
        if not fine:
            wanted = ", ".join(t for t in ("" if math.isfinite(item) else "finite", bounds_text(metadata)) if t)
            raise ConfigError(f"Option {name!r} must be {wanted}, not {item!r}.")


def bounds_text(metadata: Mapping[str, Any]) -> str:
    """``{'ge': 0, 'le': 1}`` as ``>= 0, <= 1``."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return ", ".join(f"{signs[b]} {metadata[b]:g}" for b in _BOUNDS if metadata.get(b) is not None)


def parse(name: str, hint: Any, text: str) -> Any:
    """The text of a command line as a value of type ``hint``; lists are comma-separated, ``none`` is None."""
    # None first: to a `str` the text "none" would be a string like any other.
    for member in sorted(_union_members(hint), key=lambda m: m is not type(None)):
        try:
            return _parse_one(member, text)
        except ValueError:
            continue
    raise ConfigError(f"Option {name!r} must be {_describe(hint)}, not {text!r}.")


def _parse_one(hint: Any, text: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is type(None):
        if text.lower() != "none":
            raise ValueError(text)
        return None
    if origin is Literal:
        for choice in typing.get_args(hint):
            if str(choice) == text:
                return choice
        raise ValueError(text)
    if origin is tuple:
        parts = [p.strip() for p in text.split(",") if p.strip()]
        return tuple(_parse_one(typing.get_args(hint)[0], p) for p in parts)
    if hint is bool:
        if text.lower() in ("true", "yes", "on", "1"):
            return True
        if text.lower() in ("false", "no", "off", "0"):
            return False
        raise ValueError(text)
    return hint(text)


def describe(config: type[Config]) -> list[OptionSpec]:
    """The options of a config class, from the class itself; annotations as the file spells them."""
    annotations: dict[str, str] = {}
    for base in reversed(config.__mro__):
        annotations |= {
            k: v if isinstance(v, str) else inspect.formatannotation(v)
            for k, v in inspect.get_annotations(base).items()
        }
    return [
        OptionSpec(f.name, annotations[f.name], f.default, f.metadata.get("help", ""), bounds_text(f.metadata))
        for f in dataclasses.fields(config)
    ]


def describe_source(source: str, class_name: str) -> list[OptionSpec]:
    """The same list read from a file's text, without running it.

    ``class_name`` is the method's class; its ``Config = NAME`` attribute says which class holds the options.
    Raises RegistryError if the file does not declare them in the documented form.
    """
    tree = ast.parse(source)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    method = classes.get(class_name)
    if method is None:
        raise RegistryError(f"Class {class_name!r} is not in the file its registry entry names.")
    name = class_attribute(method, "Config")
    if not isinstance(name, ast.Name) or name.id not in classes:
        return []
    specs: list[OptionSpec] = []
    for node in classes[name.id].body:
        if not (
            isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Call)
        ):
            continue
        if not (isinstance(node.value.func, ast.Name) and node.value.func.id == "option"):
            continue
        arguments = dict(zip(("default", "help"), node.value.args, strict=False))
        arguments |= {k.arg: k.value for k in node.value.keywords if k.arg}
        try:
            literal = {k: ast.literal_eval(v) for k, v in arguments.items()}
        except ValueError as error:
            raise RegistryError(
                f"Option {node.target.id!r} of {class_name} must have literal default and bounds."
            ) from error
        bounds = bounds_text(literal)
        specs.append(
            OptionSpec(
                node.target.id, ast.unparse(node.annotation), literal["default"], literal.get("help", ""), bounds
            )
        )
    return specs


def class_attribute(node: ast.ClassDef, name: str) -> ast.expr | None:
    """The expression assigned to ``name`` in a class body, or None."""
    for item in node.body:
        if isinstance(item, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in item.targets):
            return item.value
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id == name:
            return item.value
    return None
