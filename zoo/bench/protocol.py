"""A protocol is a YAML file that fixes everything a number depends on; its id, ``name@hash``, stands in every row.

The hash covers the resolved protocol: hashes of the images and not their paths, metrics with their versions (which
stand for the defaults of settings that are not given), every other default filled in, keys sorted. Two protocols with
one id measure the same thing; the description is free text and not hashed.
Protocols that ship live in ``benchmarks/protocols`` of a checkout and in ``zoo/protocols`` of an installed package.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from zoo import shipped
from zoo.bench.selection import SET_PREFIX, Pairs, Seed, expand_sets, list_pairs, set_file
from zoo.config import Config
from zoo.errors import ConfigError, ImageError, ProtocolError, UnknownNameError, ZooError
from zoo.images import MAX_SIDE
from zoo.names import composed
from zoo.registry import Registry, Resolved, Strict, import_object

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Baseline = Literal["content-copy", "style-copy", "color-transfer", "frozen-frame"]
_YEAR = 31_536_000  # seconds; a clock of the system cannot wait for every number
# -0.0 and 0.0 are one number, and two spellings would be two protocols.
_Number = Annotated[float, AfterValidator(lambda value: value + 0.0)]


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Settings as they are; ValueError for a number that JSON, and with it the protocol's id, cannot tell."""
    try:
        json.dumps(values, allow_nan=False)
    except ValueError as error:
        raise ValueError("numbers must be finite") from error
    except TypeError:  # a date, say: refused where the setting is used
        pass
    return values


_Settings = Annotated[dict[str, Any], AfterValidator(_finite)]


class ImageRef(Strict):
    """An image: ``builtin:NAME``, ``set:NAME/FILE`` or a path relative to the protocol's file.

    Alone, or with a name and its sha256. ``{set: NAME}`` in its place stands for all images of a set in that role, see
    :class:`zoo.bench.selection.SetUse`.

    ``name`` stands in rows and file names (default: the built-in name or the file's stem); a given ``sha256`` is
    checked, and one that is not given is recorded.
    """

    image: str
    name: str | None = Field(default=None, pattern=NAME)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @property
    def label(self) -> str:
        return self.name or composed(Path(self.image.removeprefix("builtin:").removeprefix(SET_PREFIX)).stem)


class Timing(Strict):
    """How often a call is timed: ``warmup`` calls first, then up to ``repeats``, none begun after ``budget`` seconds.

    A call encodes the style and stylises with that; both are timed apart. At least one call is timed. A warm-up call of
    an optimisation method is stopped after its first step.

    ``count`` above 0 asks for operations and the share of the machine's peak: one more call is made in which they are
    counted, and that of an optimisation method is stopped after so many seconds. ``batches`` are batch sizes tried for
    pictures a second, beside 1, all of them together within another ``budget``; empty asks for none.
    """

    warmup: int = Field(default=1, ge=0, le=10_000)
    repeats: int = Field(default=10, ge=1, le=100_000)
    budget: _Number = Field(default=5.0, ge=0, le=_YEAR)
    count: _Number = Field(default=0.0, ge=0, le=_YEAR)
    batches: list[Annotated[int, Field(ge=2, le=65_536)]] = Field(default_factory=list)


class MethodSettings(Strict):
    """What a protocol changes of a method: options of its Config, shown in the row's label, and its timing."""

    options: _Settings = Field(default_factory=dict)
    timing: Timing | None = None


class MethodChoice(MethodSettings):
    """The same for one method, and which preset or checkpoint its bare name means under the protocol."""

    preset: str | None = None


class MetricUse(Strict):
    """A metric by its name in the registry, with settings other than its defaults."""

    name: str
    settings: _Settings = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name in rows: ``ssim`` or ``ssim[channels=rgb]``."""
        return label_with(self.name, self.settings)


class FilmSettings(Strict):
    """Makes a protocol one of films: its contents are clips, of which ``frames`` are stylized from second ``start`` on.

    ``keep`` are the ways of keeping frames together (:class:`zoo.controls.video.Video`), each a line of its own;
    ``long`` is how many frames lie between the two of the long-term error.
    """

    frames: int = Field(default=32, ge=2, le=100_000)
    start: _Number = Field(default=0.0, ge=0, le=_YEAR)
    keep: list[Literal["none", "warp", "temporal"]] = Field(default=["none", "warp", "temporal"], min_length=1)
    long: int = Field(default=8, ge=2, le=10_000)


class Limits(Strict):
    """``seconds`` for loading and for each cell; ``memory`` as a share of the machine's, for a method's process."""

    seconds: float = Field(default=600.0, gt=0, le=_YEAR)
    memory: float = Field(default=0.8, gt=0, le=1)


def _image(value: Any) -> Any:
    return {"image": value} if isinstance(value, str) else value


def _metric(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


_Images = list[Annotated[ImageRef, BeforeValidator(_image)]]


class Protocol(Strict):
    """The schema of a protocol's file.

    ``pairs`` is a rule of :mod:`zoo.bench.selection`; images that no pair takes are left out of the protocol.

    ``sizes`` are pixels of the side that ``resize`` names (0 keeps the size); styles take the same size unless
    ``style_size`` is given. ``optimisation`` holds for every method that optimises the image, where the method has the
    option; ``methods`` holds for one method or ``method.tag`` and goes above it.

    ``steps`` asks such a method for its picture at each of these steps of one run, a line each (empty: at the end).
    """

    version: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=NAME)
    description: str = ""
    contents: Annotated[_Images, BeforeValidator(partial(expand_sets, role="contents"))] = Field(min_length=1)
    styles: Annotated[_Images, BeforeValidator(partial(expand_sets, role="styles"))] = Field(min_length=1)
    pairs: Pairs = "all"
    sizes: list[Annotated[int, Field(ge=0, le=MAX_SIDE)]] = Field(min_length=1)
    resize: Literal["long", "short", "exact"] = "long"
    style_size: int | None = Field(default=None, ge=0, le=MAX_SIDE)
    seeds: list[Seed] = Field(default=[0], min_length=1)
    strengths: list[Annotated[_Number, Field(ge=0, le=1)]] = Field(default=[1.0], min_length=1)
    timing: Timing = Timing()
    optimisation: MethodSettings = MethodSettings()
    methods: dict[str, MethodChoice] = Field(default_factory=dict)
    metrics: list[Annotated[MetricUse, BeforeValidator(_metric)]] = Field(default_factory=list)
    baselines: list[Baseline] = Field(default=["content-copy", "style-copy", "color-transfer"])
    film: FilmSettings | None = None
    steps: list[Annotated[int, Field(ge=1, le=10**9)]] = Field(default_factory=list)
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        for role, refs in (("contents", self.contents), ("styles", self.styles)):
            _refuse_twice(role, [ref.label for ref in refs])
            for ref in refs:
                if "__" in ref.label:
                    raise ValueError(f"{role}: {ref.label!r} has two underscores in a row: give it another name")
        if not self.listed:
            raise ValueError("pairs: none is listed")
        _refuse_twice("pairs", self.listed)
        if self.steps and (self.film or self.steps != sorted(self.steps)):
            raise ValueError("steps: they ascend, and belong to a protocol of pictures")
        for what in ("sizes", "seeds", "strengths", "baselines", "steps"):
            _refuse_twice(what, getattr(self, what))
        drawn = {"content-copy", "frozen-frame"} if self.film else {"content-copy", "style-copy", "color-transfer"}
        for name in self.baselines:
            if name not in drawn:
                raise ValueError(f"baselines: {name} is none of {'films' if self.film else 'pictures'}")
        if self.film and self.film.long >= self.film.frames:
            raise ValueError(
                f"film: no two of {self.film.frames} frames lie {self.film.long} apart, give a smaller 'long'"
            )
        if self.film and self.metrics:
            raise ValueError("metrics: a protocol of films has measures of its own, leave them out")
        timings = [self.timing, self.optimisation.timing, *(choice.timing for choice in self.methods.values())]
        if (self.film or self.steps) and any(one and (one.count or one.batches) for one in timings):
            raise ValueError("timing: count and batches are of single pictures, not of films or steps")
        for name, choice in self.methods.items():
            if choice.preset is not None and "." in name:
                raise ValueError(f"methods: {name} names its preset already, so none can be chosen for it")
        _refuse_twice("metrics", [metric.label for metric in self.metrics])
        return self

    @property
    def listed(self) -> list[tuple[str, str]]:
        """The pairs (content, style) by name."""
        return list_pairs(self.pairs, [ref.label for ref in self.contents], [ref.label for ref in self.styles])


def _refuse_twice(what: str, values: list[Any]) -> None:
    for value, number in Counter(values).items():
        if number > 1:
            raise ValueError(f"{what}: {value} is listed twice")


def label_with(name: str, settings: dict[str, Any]) -> str:
    """``name[key=value,...]``, keys sorted; the name alone without settings."""
    inside = ",".join(f"{key}={_plain(settings[key])}" for key in sorted(settings))
    return f"{name}[{inside}]" if inside else name


def _plain(value: Any) -> str:
    return "+".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True)
class ProtocolImage:
    """An image of a resolved protocol: its name in rows, where it is read from, and the hash of the file's bytes."""

    name: str
    source: str
    sha256: str


@dataclass(frozen=True)
class ResolvedProtocol:
    """A protocol with its images hashed and its metrics' versions looked up."""

    spec: Protocol
    contents: tuple[ProtocolImage, ...]
    styles: tuple[ProtocolImage, ...]
    pairs: tuple[tuple[str, str], ...]
    metric_versions: tuple[int, ...]

    @property
    def data(self) -> dict[str, Any]:
        """What the id is the hash of, as plain data."""
        data = self.spec.model_dump(mode="json", by_alias=True, exclude={"description"})
        for name in ("film", "steps"):  # ids of protocols without them are older
            if not data[name]:
                del data[name]
        data["contents"] = [{"name": image.name, "sha256": image.sha256} for image in self.contents]
        data["styles"] = [{"name": image.name, "sha256": image.sha256} for image in self.styles]
        data["pairs"] = [list(pair) for pair in self.pairs]
        for metric, version in zip(data["metrics"], self.metric_versions, strict=True):
            metric["version"] = version
        return data

    @property
    def id(self) -> str:
        """``name@`` and twelve hex digits."""
        canonical = json.dumps(self.data, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return f"{self.spec.name}@{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"

    def chosen(self, name: str) -> str:
        """A method's name with the preset that the protocol fixes for it, if it does and the name has none."""
        choice = self.spec.methods.get(name)
        return name if choice is None or choice.preset is None else f"{name}.{choice.preset}"

    def settings(self, resolved: Resolved, known: frozenset[str]) -> tuple[dict[str, Any], Timing]:
        """Options and timing for a method that has the options ``known``: the most specific entry wins."""
        options: dict[str, Any] = {}
        timing = self.spec.timing
        if resolved.entry.taxonomy.optimizes == "image":
            general = self.spec.optimisation
            options |= {key: value for key, value in general.options.items() if key in known}
            timing = general.timing or timing
        for name in (resolved.method, resolved.label):
            own = self.spec.methods.get(name)
            if own is not None:
                unknown = sorted(set(own.options) - known)
                if unknown:
                    raise UnknownNameError("option", unknown[0], known, f"(protocol {self.spec.name}, {name})")
                options |= own.options
                timing = own.timing or timing
        return options, timing


def check_settings(protocol: str, name: str, implementation: str, settings: Mapping[str, Any]) -> None:
    """ProtocolError where the class of a method or metric refuses its settings.

    One that cannot be imported is left to its worker, which says why in rows of its own.
    """
    try:
        config: type[Config] = import_object(implementation).Config
    except Exception:
        return
    try:
        config.make(settings)
    except ConfigError as error:
        raise ProtocolError(f"Protocol {protocol}, {name}: {error}") from error


def list_protocols() -> list[str]:
    """Names of the protocols that ship."""
    return shipped.names("protocols")


def find_protocol(name: str) -> Path:
    """The file of a protocol that ships, or the path given; UnknownNameError or ProtocolError where there is none."""
    return shipped.find("protocols", "protocol", name, ProtocolError)


def load_protocol(path: Path) -> Protocol:
    """A protocol's file checked against its schema; ProtocolError names the first fault and its place."""
    return shipped.read(path, Protocol, ProtocolError)


def resolve_protocol(spec: Protocol, folder: Path, registry: Registry) -> ResolvedProtocol:
    """Hash the images (paths are relative to ``folder``), look the metrics up and list the pairs.

    Raises ProtocolError for an image that cannot be read or whose hash differs, and for a metric's setting that it does
    not have or whose value it refuses; UnknownNameError for a metric or a method that the registry lacks.
    """
    for name, choice in spec.methods.items():
        registry.resolve(name if choice.preset is None else f"{name}.{choice.preset}")
    pairs = tuple(spec.listed)
    contents, styles = (
        tuple(resolve(ref, folder, spec.name) for ref in refs if ref.label in used)
        for refs, used, resolve in (
            (spec.contents, {c for c, _ in pairs}, _resolve_clip if spec.film else _resolve_image),
            (spec.styles, {s for _, s in pairs}, _resolve_image),
        )
    )
    for metric in spec.metrics:
        check_settings(spec.name, metric.label, registry.metric(metric.name).implementation, metric.settings)
    versions = tuple(registry.metric(metric.name).version for metric in spec.metrics)
    return ResolvedProtocol(spec, contents, styles, pairs, versions)


def _resolve_clip(ref: ImageRef, folder: Path, protocol: str) -> ProtocolImage:
    from zoo import images
    from zoo.download import file_sha256
    from zoo.video.clips import builtin_clip

    try:
        if ref.image.startswith(images.BUILTIN_PREFIX):
            path = builtin_clip(ref.image.removeprefix(images.BUILTIN_PREFIX))
        else:
            path = folder / ref.image
            if not path.is_file():
                raise ProtocolError(f"there is no film {path}.")
    except ZooError as error:
        raise ProtocolError(f"Protocol {protocol}, clip {ref.label}: {error}") from error
    return _checked(ref, str(path), file_sha256(path), protocol)


def _resolve_image(ref: ImageRef, folder: Path, protocol: str) -> ProtocolImage:
    from zoo import images

    try:
        if ref.image.startswith(images.BUILTIN_PREFIX):
            source = ref.image
        else:
            source = str(set_file(ref.image) if ref.image.startswith(SET_PREFIX) else folder / ref.image)
        sha256 = images.read(source).sha256
    except (ImageError, ZooError) as error:
        raise ProtocolError(f"Protocol {protocol}, image {ref.label}: {error}") from error
    return _checked(ref, source, sha256, protocol)


def _checked(ref: ImageRef, source: str, sha256: str, protocol: str) -> ProtocolImage:
    if ref.sha256 not in (None, sha256):
        raise ProtocolError(
            f"Protocol {protocol}: {ref.image} is not the image it names (sha256 {sha256[:12]}..., expected "
            f"{str(ref.sha256)[:12]}...)."
        )
    return ProtocolImage(ref.label, source, sha256)
