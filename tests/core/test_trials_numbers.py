"""Numbers at their limits, wherever one is asked for: taken as what they are, or refused in one sentence."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from command import run

import zoo
from zoo.bench.protocol import Protocol, load_protocol
from zoo.cli import build
from zoo.cli.texture import parse_size
from zoo.config import LARGEST_FLOAT, LARGEST_INT, SEEDS, Config, describe
from zoo.errors import ConfigError, InputError, ProtocolError, ZooError
from zoo.images import SizePolicy
from zoo.options import RANGES
from zoo.registry import import_object, load_registry
from zoo.report.figures.grid import Region
from zoo.stylizer import Call
from zoo.training.task import TrainConfig

# As people, scripts and broken pipelines write them.
TEXTS = [
    "0", "-0.0", "-1", "1e400", "-1e400", "nan", "inf", "-Infinity", "5e-324", "1e-400", "0.5", str(2**31), str(2**63),
    str(2**64), str(-(2**64)), "9" * 400, "9" * 5000, "", "many", "0x10", "²", "1,5",
]  # fmt: skip
VALUES: list[Any] = [
    0, -0.0, -1, math.inf, -math.inf, math.nan, 5e-324, 0.5, 2**31, 2**63, 2**64, -(10**400), 10**400, 10**5000, True,
]  # fmt: skip


def sentence(text: str) -> str:
    """The one line of a refusal, short enough to be read."""
    lines = text.rstrip("\n").split("\n")
    assert len(lines) == 1, text
    assert len(lines[0]) < 400, text
    assert "Traceback" not in text
    return lines[0]


def attempt(call: Callable[[Any], Any], argument: Any) -> tuple[Any, str]:
    """What a call gives, or None and the sentence of its refusal."""
    try:
        return call(argument), ""
    except ZooError as error:
        return None, sentence(str(error))


# -- options of the command line --------------------------------------------------------------------------------------


def verbs(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield (*path, command.name or command.callback.__name__.replace("_", "-")), command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from verbs(inner.typer_instance, (*path, str(inner.name)))


def numeric_options() -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """The words of a command, a flag of it that takes a number, and how typer reads it."""
    for words, callback in verbs(build()):
        for name, hint in typing.get_type_hints(callback, include_extras=True).items():
            kinds = {int, float} & {typing.get_args(hint)[:1][0] if typing.get_args(hint) else hint}
            kinds |= {int, float} & set(typing.get_args(typing.get_args(hint)[0] if typing.get_args(hint) else hint))
            if kinds:
                info = next(one for one in hint.__metadata__ if hasattr(one, "param_decls"))
                flags = [flag for flag in info.param_decls or () if flag.startswith("--")]
                yield words, flags[0] if flags else f"--{name.replace('_', '-')}", info


OPTIONS = list(numeric_options())


def test_every_numeric_option_states_its_range():
    assert len(OPTIONS) > 30
    bare = [(words, flag) for words, flag, info in OPTIONS if info.parser not in RANGES]
    assert not bare, "use whole() or real() of zoo.cli.common"


@pytest.mark.parametrize(
    ("words", "flag", "info"), OPTIONS, ids=[" ".join([*words, flag]) for words, flag, _ in OPTIONS]
)
def test_a_number_out_of_range_is_one_sentence_before_anything_begins(words, flag, info, capsys):
    low, high, above = RANGES[info.parser]
    for text in filter(None, TEXTS):  # an empty one never comes so far
        try:
            value = info.parser(text)
        except typer.BadParameter:
            assert run(*words, f"{flag}={text}") == 2
            said = sentence(capsys.readouterr().err)
            assert f"'{flag}'" in said
            assert f"{low:g}" in said or f"{low}" in said
            assert f"{high:g}" in said or f"{high}" in said
        else:
            assert low <= value <= high
            assert value > low or not above
            assert math.copysign(1, value) == 1 or value < 0, "-0.0 is 0.0"


# -- options of methods, training and metrics -------------------------------------------------------------------------


def configs() -> Iterator[type[Config]]:
    registry = load_registry()
    yield TrainConfig
    for entry in registry.methods.values():
        yield import_object(entry.implementation).Config
        if entry.training is not None:
            yield import_object(entry.training).Config
    for entry in registry.metrics.values():
        yield import_object(entry.implementation).Config


@pytest.mark.parametrize("config", dict.fromkeys(configs()), ids=lambda config: config.__name__)
def test_an_option_takes_a_number_that_it_can_use_or_says_which(config):
    for spec in describe(config):
        if "int" not in spec.type and "float" not in spec.type:
            continue
        for given in [*TEXTS, *VALUES]:
            try:
                found = getattr(config.make({spec.name: given}), spec.name)
            except ConfigError as error:
                said = sentence(str(error))
                assert spec.name in said or "Option" not in said
                assert spec.bounds in said or "must be" not in said
                continue
            for value in found if isinstance(found, tuple) else (found,):
                if isinstance(value, int | float) and not isinstance(value, bool):
                    largest = LARGEST_FLOAT if isinstance(value, float) else max(LARGEST_INT, SEEDS[1])
                    assert abs(value) <= largest
                    assert math.copysign(1, value) == 1 or value < 0


# -- protocols --------------------------------------------------------------------------------------------------------

BASE = {
    "schema": 1, "name": "one", "contents": ["builtin:astronaut"], "styles": ["builtin:swirls"], "sizes": [64],
}  # fmt: skip
PLACES = [
    "sizes: [{}]", "style_size: {}", "seeds: [{}]", "strengths: [{}]", "timing: {{warmup: {}}}", "schema: {}",
    "timing: {{repeats: {}}}", "timing: {{budget: {}}}", "timing: {{count: {}}}", "timing: {{batches: [{}]}}",
    "limits: {{seconds: {}}}", "limits: {{memory: {}}}", "pairs: {{sample: {}}}", "pairs: {{sample: 1, seed: {}}}",
    "pairs: {{styles_per_content: {}}}", "contents: {{set: styleid, sample: {}}}",
    "contents: {{set: styleid, sample: 1, seed: {}}}",
    "optimisation: {{timing: {{repeats: {}}}}}", "methods: {{gatys: {{timing: {{budget: {}}}}}}}",
    "film: {{frames: {}}}\nbaselines: []", "film: {{start: {}}}\nbaselines: []", "film: {{long: {}}}\nbaselines: []",
    "steps: [{}]",
]  # fmt: skip
YAML = [".nan", ".inf", "-.inf", "1e400", "-1.0e+400", "2024-99-99", "0b2", "[" * 2000, *TEXTS]


def numeric_fields(model: Any) -> Iterator[str]:
    """Names of the fields of a protocol that hold numbers, however deep."""
    for name, field in model.model_fields.items():
        text = inspect.formatannotation(field.annotation)
        if "int" in text.replace("Pointer", "") or "float" in text or text == "Literal[1]":
            yield field.alias or name
        for part in [field.annotation, *typing.get_args(field.annotation)]:
            if hasattr(part, "model_fields"):
                yield from numeric_fields(part)


def test_every_numeric_field_of_a_protocol_is_tried():
    tried = {word.strip("{[: ") for place in PLACES for word in place.split() if ":" in word}
    assert set(numeric_fields(Protocol)) <= tried


@pytest.mark.parametrize("place", PLACES)
def test_a_protocol_with_a_number_that_cannot_be_is_one_sentence(place, tmp_path):
    path = tmp_path / "p.yaml"
    rest = {key: value for key, value in BASE.items() if not place.startswith(key)}
    for text in YAML:
        path.write_text(f"{yaml.safe_dump(rest)}{place.format(text)}\n", encoding="utf-8")
        spec, said = attempt(load_protocol, path)
        if spec is None:
            assert said.startswith("p.yaml")
            continue
        assert "-0.0" not in spec.model_dump_json()
        assert all(SEEDS[0] <= seed <= SEEDS[1] for seed in spec.seeds)


def test_minus_zero_is_the_protocol_of_zero(tmp_path):
    specs = []
    for zero in ("0", "0.0", "-0.0"):
        text = f"{yaml.safe_dump(BASE)}strengths: [{zero}]\ntiming: {{budget: {zero}}}\n"
        (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
        specs.append(load_protocol(tmp_path / "p.yaml").model_dump_json())
    assert len(set(specs)) == 1


def test_a_methods_option_in_a_protocol_is_refused_before_anything_is_measured(tmp_path, capsys):
    path = tmp_path / "p.yaml"
    for number in ("9" * 400, ".inf", "-1", "18446744073709551616"):
        path.write_text(f"{yaml.safe_dump(BASE)}methods: {{gatys: {{options: {{num_steps: {number}}}}}}}\n")
        assert run("bench", "-p", str(path), "-m", "gatys", "-o", str(tmp_path / "out"), "-q") == 2
        said = sentence(capsys.readouterr().err)
        assert "finite" in said or ">= 1" in said
        assert not (tmp_path / "out").exists()


# -- numbers inside texts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [*TEXTS, "65501", "1x65501", "0x0", "٣x٣", "1x2x3", "long:", "exact:9999999999x1", "64x"]
)
def test_sizes_are_pixels_that_an_image_can_have(text):
    for read in (SizePolicy.parse, parse_size):
        found, said = attempt(read, text)
        if found is None:
            assert "65500" in said
            continue
        sides = found if isinstance(found, tuple) else found.value if isinstance(found.value, tuple) else (found.value,)
        assert all(0 <= side <= 65_500 for side in sides)


@pytest.mark.parametrize("text", ["nan,0.5", "inf,-inf", "-0.5,1.5", "1e400,0", "9" * 400 + ",0", "0.5,,0.5", "1"])
def test_weights_of_styles_are_shares(text, capsys):
    styles = ["--style", "builtin:swirls", "builtin:mosaic"]
    assert run("stylize", "-m", "adain", *styles, "--style-interpolation-weights", text, "-q") == 2
    assert "weight" in sentence(capsys.readouterr().err)


@pytest.mark.parametrize(
    "text", ["nan,0,1,1", "inf,0,1,1", "0,0,0,0", "0,0,-0.0,1", "9" * 400 + ",0,1,1", "0.5,0.5,1e-400,1"]
)
def test_a_zoom_that_is_no_region(text):
    with pytest.raises(ZooError, match="LEFT,TOP,WIDTH,HEIGHT as shares"):
        Region.parse(text)


def test_options_of_a_cluster_are_no_numbers_without_end(tmp_path, capsys):
    wishes = ["--shards", "2", "--cluster-option", f"slurm_time={'9' * 5000}", "--device", "cpu"]
    assert run("bench", "-m", "adain", "-o", str(tmp_path / "out"), *wishes, "-q") == 2
    assert "cluster-option" in sentence(capsys.readouterr().err)


# -- the library ------------------------------------------------------------------------------------------------------


def test_a_seed_that_no_generator_takes_is_told_with_the_range():
    model = zoo.load("adain", device="cpu", precision="fp32")
    picture = torch.rand(1, 3, 16, 16)
    code = model.encode_style(picture)
    for seed in (2**64, -(2**63) - 1, 10**400):
        with pytest.raises(InputError, match=f"from {SEEDS[0]} to {SEEDS[1]}"):
            model.stylize(picture, code, seed=seed)
    for seed in SEEDS:
        assert Call(seed=seed).generator().initial_seed() in (seed, seed + 2**64)


def test_the_largest_and_smallest_of_an_option_end_in_a_picture_or_in_one_sentence():
    """Two steps of an optimisation with weights that float32 cannot tell from nothing, or can only just hold."""
    picture, style = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    layers = {"content_layers": ("relu1_1",), "style_layers": ("relu1_1",), "style_layer_weights": (1.0,)}
    for name, value in (
        ("style_weight", 5e-324), ("style_weight", LARGEST_FLOAT), ("learning_rate", 5e-324), ("noise_scale", 1e38),
        ("learning_rate", LARGEST_FLOAT), ("history", LARGEST_INT), ("content_weight", 0.0), ("time_limit", 5e-324),
    ):  # fmt: skip
        model = zoo.load("gatys", device="cpu", precision="fp32", num_steps=2, init="noise", **{**layers, name: value})
        try:
            image = model.stylize(picture, model.encode_style(style)).image
        except ZooError as error:
            sentence(str(error))
        else:
            assert torch.isfinite(image).all(), (name, value)


def test_lists_in_lists_without_end_are_no_yaml(tmp_path: Path):
    (tmp_path / "p.yaml").write_text("a: " + "[" * 100_000, encoding="utf-8")
    with pytest.raises(ProtocolError, match=r"p\.yaml"):
        load_protocol(tmp_path / "p.yaml")
