"""registry.yaml and plugins' entry points, read into frozen entries without importing torch or any method.

``load_registry()`` gives the whole; ``registry.resolve("gatys.paper")`` gives what is needed to build one method;
``zoo.load`` (zoo/loading.py) builds it. An unknown key, a duplicate name or a missing file is a :class:`RegistryError`
that names the place. Plugins are classes announced under the entry point group ``zoo.methods``; a class attribute
``ENTRY`` (a literal dictionary with the keys of :class:`MethodEntry`) describes them and is read from the file's syntax
tree.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import hashlib
import importlib
import importlib.metadata
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zoo.config import OptionSpec, class_attribute, describe_source
from zoo.errors import RegistryError, UnknownNameError, ZooError
from zoo.modules import module_source
from zoo.provenance import read_header
from zoo.references import references

PACKAGE = Path(__file__).resolve().parent
ENTRY_POINT_GROUP = "zoo.methods"


class Strict(BaseModel):
    """A part of a file: frozen, and an unknown key or a number that is not finite is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Taxonomy(Strict):
    """Place in the survey's tree: what is optimised, how many styles one model holds, which statistics of style."""

    optimizes: Literal["image", "model"]
    styles: Literal["one", "many", "any"]
    statistics: Literal["parametric", "patches"]


class Preset(Strict):
    """Named options that reproduce a known setting; ``checkpoint`` names weights it goes with."""

    summary: str
    options: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str | None = None


class Provenance(Strict):
    """The origin of weights: ``trained`` by us, as the file's own metadata says, or ``published`` by the authors.

    ``steps`` and ``hours`` are of the last run; ``hours_in_all`` adds the runs this one resumed.
    """

    kind: Literal["trained", "published"]
    command: str = ""
    data: str = ""
    teacher: str = ""
    steps: int | None = None
    hours: float | None = None
    hours_in_all: float | None = None
    hardware: str = ""
    commit: str = ""
    repository: str = ""
    converter: str = ""


class Asset(Strict):
    """A file of pretrained weights: one place, the bytes it must have, and what may be done with it.

    ``file`` lies in the folder of ``package``, a module that ``install`` (a requirement of pip) brings, or of the zoo
    itself; ``url`` is fetched when the user asks, and kept as ``kept_as`` (default: the address's last part).
    ``sha256`` may be its first digits. ``base`` is another asset without which this one is of no use.
    """

    summary: str
    file: str | None = None
    package: str | None = None
    install: str = ""
    url: str | None = None
    kept_as: str = ""
    base: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{8,64}$")
    given_bytes: int | None = Field(default=None, alias="bytes")
    license: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Asset:
        if (self.file is None) == (self.url is None):
            raise ValueError("give either 'file' or 'url'")
        if self.package is not None and (self.file is None or not self.install):
            raise ValueError("a 'package' also needs 'file' and 'install'")
        return self

    @property
    def bundled(self) -> bool:
        """Return whether it comes with the zoo or with one of its requirements."""
        return self.file is not None and "[" not in self.install

    @property
    def bytes(self) -> int | None:
        """Return the size of the file; None where nobody says."""
        if self.given_bytes is None and self.file is not None and self.package is None:
            return (PACKAGE / self.file).stat().st_size
        return self.given_bytes


class Checkpoint(Asset):
    """Weights that a method was trained to, with its ``options`` and the names of the ``styles`` it knows, if trained.

    What a bundled file tells of itself is not repeated: its size, parameters and provenance are read from it. A ``url``
    needs them, and a licence, in its entry. ``hours_in_all`` adds the runs that the file's own resumed.
    """

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    given_parameters: int | None = Field(default=None, alias="parameters")
    given_provenance: Provenance | None = Field(default=None, alias="provenance")
    hours_in_all: float | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    styles: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _told(self) -> Checkpoint:
        told = {
            "bytes": self.given_bytes,
            "parameters": self.given_parameters,
            "provenance": self.given_provenance,
            "license": self.license,
        }
        lacking = [name for name, value in told.items() if self.url is not None and not value]
        if lacking:
            raise ValueError(f"weights behind a 'url' also need {', '.join(map(repr, lacking))}")
        return self

    @property
    def parameters(self) -> int:
        """Return how many numbers the file holds."""
        if self.given_parameters is not None:
            return self.given_parameters
        return read_header(PACKAGE / str(self.file)).parameters

    @property
    def provenance(self) -> Provenance:
        """Return where the weights come from."""
        if self.given_provenance is not None:
            return self.given_provenance
        return Provenance(**read_header(PACKAGE / str(self.file)).provenance, hours_in_all=self.hours_in_all)


class MethodEntry(Strict):
    """One method: its class as ``module:Class``, its paper, its place in the taxonomy, its presets and checkpoints.

    Title, authors, year and BibTeX are those of the entry ``cite`` in references.bib; a plugin, which has no entry
    there, gives ``title``, ``authors``, ``year`` and ``bibtex`` itself. ``good_for``
    is what to take the method for, in a few words. ``training`` is the
    :class:`~zoo.training.task.TrainingTask` of a method that is trained, as ``module:Class``.
    """

    implementation: str = Field(alias="class", pattern=r"^[\w.]+:\w+$")
    good_for: str = ""
    cite: str = ""
    title: str
    authors: str
    year: int
    paper: str
    bibtex: str
    taxonomy: Taxonomy
    default: str
    encoder: str | None = None
    training: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    presets: dict[str, Preset] = Field(default_factory=dict)
    checkpoints: dict[str, Checkpoint] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _tags(self) -> MethodEntry:
        both = set(self.presets) & set(self.checkpoints)
        if both:
            raise ValueError(f"{', '.join(sorted(both))} names a preset and a checkpoint")
        if self.default not in self.tags:
            raise ValueError(f"the default {self.default!r} is neither a preset nor a checkpoint")
        for tag, preset in self.presets.items():
            if preset.checkpoint is not None and preset.checkpoint not in self.checkpoints:
                raise ValueError(f"preset {tag!r} names checkpoint {preset.checkpoint!r}, which is not listed")
        return self

    @property
    def tags(self) -> list[str]:
        """Presets, then checkpoints."""
        return [*self.presets, *self.checkpoints]


class MetricEntry(Strict):
    """A metric: its class, what it measures, which direction is better, its unit and the version of its definition.

    ``scope``: a value of one picture (``pair``), or of all pictures of a method together (``set``). ``needs`` are the
    networks or encoders whose weights it reads with its default settings, ``optional`` those of other settings;
    ``package`` is a module of the extra ``metrics`` that it imports or whose weights it reads. ``heading`` is what
    tables call it with its default settings, where its plain name belongs to a published definition with others.
    """

    implementation: str = Field(alias="class", pattern=r"^[\w.]+:\w+$")
    title: str
    heading: str | None = None
    measures: Literal["content", "style", "both"]
    scope: Literal["pair", "set"] = "pair"
    direction: Literal["higher", "lower"]
    range: str = Field(pattern=r"^[(\[](-?\d+(\.\d+)?|-inf), (-?\d+(\.\d+)?|inf)[)\]]$")
    unit: str
    version: int
    reference: str
    encoder: str | None = None
    needs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    package: str | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that ``range`` allows."""
        low, _, high = self.range[1:-1].partition(", ")
        return float(low), float(high)


class RegistryFile(Strict):
    """The schema of registry.yaml."""

    version: Literal[1] = Field(alias="schema")
    trained_license: str = ""
    methods: dict[str, MethodEntry]
    encoders: dict[str, Asset]
    metrics: dict[str, MetricEntry]
    networks: dict[str, Asset] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _networks(self) -> RegistryFile:
        for name, metric in self.metrics.items():
            for network in (*metric.needs, *metric.optional):
                if network not in self.networks and network not in self.encoders:
                    raise ValueError(f"metrics.{name}: unknown network {network!r}")
        return self


@dataclass(frozen=True)
class Resolved:
    """A name resolved: which method, which tag, which options and which weights."""

    method: str
    tag: str
    entry: MethodEntry
    options: dict[str, Any]
    checkpoint: Checkpoint | None

    @property
    def label(self) -> str:
        """The full name, ``method.tag``."""
        return f"{self.method}.{self.tag}"

    @property
    def weights(self) -> str:
        """The name of its checkpoint, ``method.tag``, of which a preset's may be another; empty where it has none."""
        listed = self.entry.checkpoints.items()
        return next((f"{self.method}.{tag}" for tag, one in listed if one is self.checkpoint), "")

    @property
    def summary(self) -> str:
        """One line on this preset or checkpoint."""
        table: dict[str, Preset | Checkpoint] = {**self.entry.presets, **self.entry.checkpoints}
        return table[self.tag].summary


@dataclass(frozen=True)
class Registry:
    """All entries. ``broken`` lists plugins that could not be read, with the reason."""

    methods: dict[str, MethodEntry]
    encoders: dict[str, Asset]
    metrics: dict[str, MetricEntry]
    plugins: frozenset[str] = frozenset()
    broken: tuple[tuple[str, str], ...] = ()
    networks: dict[str, Asset] = field(default_factory=dict)

    def resolve(self, name: str) -> Resolved:
        """``gatys`` or ``gatys.paper`` as a :class:`Resolved`; UnknownNameError with suggestions otherwise."""
        method, _, tag = (name := str(name)).partition(".")
        entry = self.methods.get(method)
        if entry is None:
            reasons = dict(self.broken)
            if method in reasons:
                raise RegistryError(f"Plugin {method!r} cannot be used: {reasons[method]}")
            raise UnknownNameError("method", name, self.methods, "Run 'zoo list' for all.")
        tag = tag or entry.default
        if tag in entry.presets:
            preset = entry.presets[tag]
            checkpoint = entry.checkpoints[preset.checkpoint] if preset.checkpoint else None
            base = checkpoint.options if checkpoint else {}
            return Resolved(method, tag, entry, {**base, **preset.options}, checkpoint)
        if tag in entry.checkpoints:
            checkpoint = entry.checkpoints[tag]
            return Resolved(method, tag, entry, dict(checkpoint.options), checkpoint)
        raise UnknownNameError("preset or checkpoint", name, [f"{method}.{t}" for t in entry.tags])

    def match(self, patterns: Iterable[str]) -> list[str]:
        """Names for ``all``, ``gatys``, ``gatys.*`` or ``*cnn*``; a bare match means the method's default.

        UnknownNameError for a pattern that matches nothing.
        """
        found: list[str] = []
        full = [f"{name}.{tag}" for name, entry in self.methods.items() for tag in entry.tags]
        for pattern in patterns:
            if pattern == "all":
                names = list(self.methods)
            elif any(c in pattern for c in "*?["):
                pool = full if "." in pattern else list(self.methods)
                names = fnmatch.filter(pool, pattern)
                if not names:
                    raise UnknownNameError("method pattern", pattern, [*self.methods, *full])
            else:
                resolved = self.resolve(pattern)
                names = [pattern if "." in pattern else resolved.method]
            found += [n for n in names if n not in found]
        return found

    def metric(self, name: str) -> MetricEntry:
        """A metric's entry; UnknownNameError with suggestions."""
        if name not in self.metrics:
            raise UnknownNameError("metric", name, self.metrics)
        return self.metrics[name]

    def options(self, name: str) -> list[OptionSpec]:
        """The options of a method with this name's presets applied, read without importing the method."""
        resolved = self.resolve(name)
        module, _, class_name = resolved.entry.implementation.partition(":")
        specs = describe_source(module_source(module), class_name, module_source)
        return [OptionSpec(s.name, s.type, resolved.options.get(s.name, s.default), s.help, s.bounds) for s in specs]


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _UniqueKeyLoader(_SafeLoader):
    """YAML that refuses a key written twice; the standard loaders keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise RegistryError(f"A key is itself a mapping or a list (line {key_node.start_mark.line + 1}).")
            if key in seen:
                raise RegistryError(f"{key!r} appears twice (line {key_node.start_mark.line + 1}).")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """A YAML file as plain data; RegistryError for a syntax error or a key written twice, naming the line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except FileNotFoundError:
        raise RegistryError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(f"{path} cannot be read: {error}.") from error
    except (ValueError, RecursionError) as error:  # a date or a number that cannot be, lists in thousands of lists
        raise RegistryError(f"{path.name} is not valid YAML: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise RegistryError(f"{path.name} is not valid YAML{where}: {getattr(error, 'problem', error)}.") from error
    except RegistryError as error:
        raise RegistryError(f"{path.name}: {error}") from None


def explain(error: ValidationError, source: str) -> str:
    """The first fault of a schema check as one sentence: where, and what is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "top level"
    what = "is not a known key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return f"{source}: {where}: {what}."


@functools.cache
def source_digest() -> str:
    """Twelve hex digits that identify the package's code and registry, in a checkout or installed."""
    digest = hashlib.sha256()
    for path in [*sorted(PACKAGE.rglob("*.py")), registry_path()]:
        name = "registry.yaml" if path.suffix == ".yaml" else path.relative_to(PACKAGE).as_posix()
        digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def registry_path() -> Path:
    """registry.yaml: inside the installed package, or at the root of a checkout."""
    bundled = PACKAGE / "registry.yaml"
    return bundled if bundled.exists() else PACKAGE.parent / "registry.yaml"


def parse_registry(path: Path) -> RegistryFile:
    """registry.yaml checked against its schema; every bundled checkpoint must be there."""
    content = read_yaml(path)
    _complete(content)
    try:
        parsed = RegistryFile.model_validate(content)
    except ValidationError as error:
        raise RegistryError(explain(error, path.name)) from error
    for name, entry in parsed.methods.items():
        if not _is_method_name(name):
            raise RegistryError(f"{path.name}: methods.{name}: {_NAME_RULE}")
        for tag, checkpoint in entry.checkpoints.items():
            if checkpoint.file is not None and not (PACKAGE / checkpoint.file).is_file():
                raise RegistryError(f"{path.name}: methods.{name}.checkpoints.{tag}: {checkpoint.file} is missing.")
        if entry.encoder is not None and entry.encoder not in parsed.encoders:
            raise RegistryError(f"{path.name}: methods.{name}: unknown encoder {entry.encoder!r}.")
    return parsed


def _complete(content: Any) -> None:
    """Fill in what the file leaves to references.bib and to its own ``trained_license``."""
    methods = content.get("methods") if isinstance(content, dict) else None
    for name, entry in (methods if isinstance(methods, dict) else {}).items():
        if not isinstance(entry, dict):
            continue
        if "cite" in entry:
            found = references().get(entry["cite"])
            if found is None:
                raise RegistryError(f"methods.{name}: references.bib has no entry {entry['cite']!r}: add it there.")
            entry |= {key: entry.get(key, value) for key, value in found.facts().items()}
        checkpoints = entry.get("checkpoints")
        for checkpoint in (checkpoints if isinstance(checkpoints, dict) else {}).values():
            if isinstance(checkpoint, dict) and "file" in checkpoint and content.get("trained_license"):
                checkpoint.setdefault("license", content["trained_license"])


_NAME_RULE = "a method's name is letters, digits, '_' and '-', and is not 'all'."


def _is_method_name(name: str) -> bool:
    return re.fullmatch(r"[\w-]+", name) is not None and name != "all"


def _plugin_entry(point: importlib.metadata.EntryPoint) -> MethodEntry:
    if not _is_method_name(point.name):
        raise RegistryError(f"{point.name!r}: {_NAME_RULE}")
    if re.fullmatch(r"[\w.]+:\w+", point.value) is None:
        raise RegistryError(f"The entry point {point.value!r} must read module:Class.")
    module, _, class_name = point.value.partition(":")
    tree = ast.parse(module_source(module))
    node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name), None)
    literal = class_attribute(node, "ENTRY") if node else None
    if literal is None:
        raise RegistryError(f"{point.value} has no class attribute ENTRY.")
    try:
        return MethodEntry.model_validate({**ast.literal_eval(literal), "class": point.value})
    except ValidationError as error:
        raise RegistryError(explain(error, f"ENTRY of {point.value}")) from error
    except (ValueError, TypeError) as error:
        raise RegistryError(f"ENTRY of {point.value} must be a literal dictionary.") from error


def build_registry(path: Path, points: Sequence[importlib.metadata.EntryPoint]) -> Registry:
    """The file's entries joined with the plugins'. A plugin that cannot be read is ``broken``, and the rest goes on;
    one that takes a name already taken is a RegistryError, since either could be meant."""
    parsed = parse_registry(path)
    methods = dict(parsed.methods)
    plugins: set[str] = set()
    broken: list[tuple[str, str]] = []
    for point in points:
        if point.name in methods:
            raise RegistryError(f"Two methods are called {point.name!r}: uninstall or rename plugin {point.value}.")
        try:
            methods[point.name] = _plugin_entry(point)
            plugins.add(point.name)
        except (ZooError, SyntaxError, ValueError, OSError) as error:
            broken.append((point.name, str(error)))
    return Registry(
        methods, dict(parsed.encoders), dict(parsed.metrics), frozenset(plugins), tuple(broken), dict(parsed.networks)
    )


@functools.cache
def load_registry() -> Registry:
    """The registry of this installation, read once."""
    return build_registry(registry_path(), list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)))


def import_object(reference: str) -> Any:
    """The object named ``module:name``; RegistryError if it cannot be imported."""
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise RegistryError(f"{reference} cannot be imported: {error}.") from error
