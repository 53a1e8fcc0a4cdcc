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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from zoo.errors import ConfigError, RegistryError
from zoo.words import shown

_BOUNDS = ("ge", "gt", "le", "lt")
# Where an option states no bound of its own: what a counter of 32 bits and a number of float32 hold.
LARGEST_INT = 2**31 - 1
LARGEST_FLOAT = 3.4028234663852886e38
# A seed as torch.Generator.manual_seed takes it.
SEEDS = (-(2**63), 2**64 - 1)


def option(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A dataclass field with its help text and bounds; bounds hold for every element of a tuple.

    A number without a bound of its own ends at LARGEST_INT or LARGEST_FLOAT, and none is infinite or NaN.
    """
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
            value = _checked(item.name, hints[item.name], getattr(self, item.name), item.metadata)
            object.__setattr__(self, item.name, value)
        self.validate()

    def validate(self) -> None:
        """Rules that tie several options together; raise :class:`ConfigError`. Overridden where there are any."""

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """A configuration from names and values; text values (from a command line) are converted to the field's type.

        Raises ConfigError for an unknown name (with the nearest known one), a value of another type or out of range.
        """
        hints = typing.get_type_hints(cls)
        known = {item.name: item.metadata for item in dataclasses.fields(cls)}
        values = {}
        for raw, value in options.items():
            name = raw.replace("-", "_")
            if name not in known:
                close = difflib.get_close_matches(name, sorted(known), n=1)
                advice = f"did you mean {close[0]!r}?" if close else f"it has: {', '.join(sorted(known))}."
                raise ConfigError(f"Unknown option {shown(name)} for {cls.__name__}: {advice}")
            values[name] = parse(name, hints[name], value, known[name]) if isinstance(value, str) else value
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


def readable_type(annotation: str) -> str:
    """Return a type as a file spells it, in words: ``tuple[int, ...] | None`` is "list of whole numbers or none"."""
    return _either(_words(ast.parse(annotation, mode="eval").body))


def _words(node: ast.expr) -> list[str]:
    if isinstance(node, ast.BinOp):
        return [*_words(node.left), *_words(node.right)]
    if isinstance(node, ast.Subscript):
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if ast.unparse(node.value).endswith("Literal"):
            return [str(ast.literal_eval(item)) for item in inside]
        if ast.unparse(node.value).endswith(("Union", "Optional")):
            words = [word for item in inside for word in _words(item)]
            return [*words, "none"] if ast.unparse(node.value).endswith("Optional") else words
        return [f"list of {_words(inside[0])[0]}s"]
    names = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false", "None": "none"}
    return [names.get(ast.unparse(node), ast.unparse(node))]


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _refused(name: str, hint: Any, value: Any, metadata: Mapping[str, Any]) -> ConfigError:
    """The sentence that says what a value must be, with its range, and what it is instead."""
    infinite = isinstance(value, float) and not math.isfinite(value)
    beyond = isinstance(value, int | float) and not infinite and abs(value) > LARGEST_INT
    beyond = beyond or (isinstance(value, str) and value.strip("+-").isdigit())
    bounds = bounds_text(_all_bounds(hint, metadata) if beyond else metadata)
    parts = []
    for words in _words(ast.parse(inspect.formatannotation(hint), mode="eval").body):
        if "number" in words:
            words = words.replace("number", "finite number" if infinite else "number") + f" {bounds}" * bool(bounds)
        parts.append(f"a {words}" if "number" in words or words.startswith("list of") else words)
    return ConfigError(f"Option {name!r} must be {_either(parts)}, not {shown(value)}.")


def _matches(hint: Any, value: Any) -> tuple[bool, Any]:
    """Return whether ``value`` is of type ``hint``, and it as stored (ints widen to float, lists become tuples)."""
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
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False, value
        try:
            return True, float(value) + 0.0  # -0.0 is 0.0, in labels and identities too
        except OverflowError:  # a whole number that no float holds, which the bounds refuse
            return True, value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value


def _checked(name: str, hint: Any, value: Any, metadata: Mapping[str, Any]) -> Any:
    """The value as stored; ConfigError for another type or a number out of its bounds."""
    for member in _union_members(hint):
        ok, stored = _matches(member, value)
        if ok:
            for item in stored if isinstance(stored, tuple) else (stored,):
                if isinstance(item, int | float) and not isinstance(item, bool) and not _within(hint, item, metadata):
                    raise _refused(name, hint, item, metadata)
            return stored
    raise _refused(name, hint, value, metadata)


def _all_bounds(hint: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The bounds of an option with those that hold where it states none."""
    largest = LARGEST_FLOAT if "float" in inspect.formatannotation(hint) else LARGEST_INT
    found = {bound: metadata.get(bound) for bound in _BOUNDS}
    if found["ge"] is None and found["gt"] is None:
        found["ge"] = -largest
    if found["le"] is None and found["lt"] is None:
        found["le"] = largest
    return found


def _within(hint: Any, value: float, metadata: Mapping[str, Any]) -> bool:
    ge, gt, le, lt = _all_bounds(hint, metadata).values()
    # Comparisons with NaN are false.
    above = value >= ge if gt is None else value > gt and (ge is None or value >= ge)
    below = value <= le if lt is None else value < lt and (le is None or value <= le)
    return above and below


def bounds_text(metadata: Mapping[str, Any]) -> str:
    """``{'ge': 0, 'le': 1}`` as ``>= 0, <= 1``."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    given = [(signs[bound], metadata[bound]) for bound in _BOUNDS if metadata.get(bound) is not None]
    return ", ".join(f"{sign} {value}" if isinstance(value, int) else f"{sign} {value:g}" for sign, value in given)


def parse(name: str, hint: Any, text: str, metadata: Mapping[str, Any] = types.MappingProxyType({})) -> Any:
    """The text of a command line as a value of type ``hint``; lists are comma-separated, ``none`` is None.

    ConfigError for another type, with the bounds that ``metadata`` states; they are not checked here.
    """
    # None first: to a `str` the text "none" would be a string like any other.
    for member in sorted(_union_members(hint), key=lambda m: m is not type(None)):
        try:
            return _parse_one(member, text)
        except ValueError:
            continue
    raise _refused(name, hint, text, metadata)


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


def describe_source(source: str, class_name: str, read: Callable[[str], str] | None = None) -> list[OptionSpec]:
    """The same list read from a file's text, without running it.

    ``class_name`` is the method's class; its ``Config = NAME`` attribute says which class holds the options. ``read``
    gives the text of a module: there the options of a class are found that the file imports or derives from.
    Raises RegistryError if the file does not declare them in the documented form.
    """
    tree = ast.parse(source)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    method = classes.get(class_name)
    if method is None:
        raise RegistryError(f"Class {class_name!r} is not in the file its registry entry names.")
    name = class_attribute(method, "Config")
    if not isinstance(name, ast.Name):
        return []
    return list(_written_options(tree, name.id, read).values())


def _written_options(tree: ast.Module, class_name: str, read: Callable[[str], str] | None) -> dict[str, OptionSpec]:
    """The options of a class by name, those of its bases first, as in a dataclass."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if class_name not in classes:
        for node in tree.body:
            if not isinstance(node, ast.ImportFrom) or node.module == __name__ or read is None:
                continue
            for alias in node.names:
                if (alias.asname or alias.name) == class_name:
                    return _written_options(ast.parse(read(node.module or "")), alias.name, read)
        return {}
    specs: dict[str, OptionSpec] = {}
    for base in reversed(classes[class_name].bases):
        if isinstance(base, ast.Name):
            specs |= _written_options(tree, base.id, read)
    for node in classes[class_name].body:
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
        specs[node.target.id] = OptionSpec(
            node.target.id, ast.unparse(node.annotation), literal["default"], literal.get("help", ""), bounds
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
