"""Typed options: what text and Python values become, what is refused, and that two readings of a file agree."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.config import (
    LARGEST_FLOAT,
    LARGEST_INT,
    Config,
    OptionSpec,
    bounds_text,
    describe,
    describe_source,
    option,
    parse,
)
from zoo.errors import ConfigError, RegistryError


@dataclass(frozen=True)
class Sample(Config):
    steps: int = option(500, "Evaluations of loss and gradient.", ge=1)
    weight: float = option(1.0, "Weight of the style loss.", ge=0, lt=100)
    flip: bool = option(False, "Whether to flip.")
    name: str = option("plain", "A text.")
    mode: Literal["fast", "good"] = option("good", "Which way.")
    limit: float | None = option(None, "Seconds, or none.", gt=0)
    note: str | None = option(None, "A text, or none.")
    layers: tuple[str, ...] = option(("relu1_1", "relu2_1"), "Layers.")
    weights: tuple[float, ...] = option((), "One weight a layer.", ge=0)
    size: int | Literal["auto"] = option("auto", "Pixels, or auto.", gt=0)

    def validate(self) -> None:
        if self.weights and len(self.weights) != len(self.layers):
            raise ConfigError("Give as many weights as layers.")


word = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=8).filter(lambda t: t != "none")
VALUES = {
    "steps": st.integers(1, LARGEST_INT),
    "weight": st.floats(0, 100, exclude_max=True),
    "flip": st.booleans(),
    "name": st.text(max_size=20),
    "mode": st.sampled_from(["fast", "good"]),
    "limit": st.none() | st.floats(0, LARGEST_FLOAT, exclude_min=True),
    "note": st.none() | st.text(max_size=20).filter(lambda t: t.lower() != "none"),
    "layers": st.lists(word, max_size=4).map(tuple),
    "size": st.just("auto") | st.integers(1, 10**9),
}


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_values_go_through_text_and_json_unchanged(values: dict[str, Any]) -> None:
    config = Sample(**values)
    assert Sample.make({name: _text(value) for name, value in values.items()}) == config
    assert Sample.make(json.loads(json.dumps(config.to_dict()))) == config
    assert dataclasses.asdict(config) == {**dataclasses.asdict(Sample()), **values}


@given(st.sampled_from(["true", "yes", "on", "1", "TRUE", "On"]), st.sampled_from(["false", "no", "off", "0", "No"]))
def test_words_for_true_and_false(yes: str, no: str) -> None:
    assert Sample.make({"flip": yes}).flip is True
    assert Sample.make({"flip": no}).flip is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "'steps' must be a whole number >= 1, not 0"),
        ({"steps": "0"}, "'steps' must be a whole number >= 1, not 0"),
        ({"steps": 2.5}, "'steps' must be a whole number >= 1, not 2.5"),
        ({"steps": True}, "'steps' must be a whole number >= 1, not True"),
        ({"steps": "many"}, "'steps' must be a whole number >= 1, not 'many'"),
        ({"steps": "none"}, "'steps' must be a whole number >= 1, not 'none'"),
        ({"weight": 100}, "'weight' must be a number >= 0, < 100, not 100.0"),
        ({"weight": -0.001}, "'weight' must be a number >= 0, < 100, not -0.001"),
        ({"weight": math.nan}, "'weight' must be a finite number >= 0, < 100, not nan"),
        ({"weight": "inf"}, "'weight' must be a finite number >= 0, < 100, not inf"),
        ({"weight": "1,2"}, "'weight' must be a number >= 0, < 100, not '1,2'"),
        ({"flip": 1}, "'flip' must be true or false, not 1"),
        ({"flip": "maybe"}, "'flip' must be true or false, not 'maybe'"),
        ({"name": 3}, "'name' must be text, not 3"),
        ({"mode": "slow"}, "'mode' must be fast or good, not 'slow'"),
        ({"limit": 0}, "'limit' must be a number > 0 or none, not 0.0"),
        ({"limit": "soon"}, "'limit' must be a number > 0 or none, not 'soon'"),
        ({"layers": "relu1_1", "weights": "1,2"}, "as many weights as layers"),
        ({"layers": 3}, "'layers' must be a list of texts, not 3"),
        ({"layers": ["a", 1]}, "'layers' must be a list of texts"),
        ({"weights": [1, -1]}, "'weights' must be a list of numbers >= 0, not -1.0"),
        ({"size": "big"}, "'size' must be a whole number > 0 or auto, not 'big'"),
    ],
)
def test_a_wrong_value_is_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Sample.make(options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stepz", "Unknown option 'stepz' for Sample: did you mean 'steps'?"),
        ("wieght", "did you mean 'weight'?"),
        ("zzz", "it has: flip, layers, limit, mode, name, note, size, steps, weight, weights."),
    ],
)
def test_an_unknown_name_gets_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Sample.make({name: 1})
    assert message in str(caught.value)


def test_names_may_be_spelt_as_flags() -> None:
    @dataclass(frozen=True)
    class Two(Config):
        num_steps: int = option(5, "Steps to take.", ge=1)

    assert Two.make({"num-steps": "7"}).num_steps == 7
    assert describe(Two)[0].flag == "--num-steps"


def test_values_are_stored_in_their_type() -> None:
    config = Sample(weight=2, layers=["a"], weights=[1], limit=3)  # pyright: ignore[reportArgumentType]
    assert (config.weight, type(config.weight)) == (2.0, float)
    assert (config.layers, config.weights) == (("a",), (1.0,))
    assert type(config.limit) is float


def test_none_is_a_value_of_its_own() -> None:
    assert Sample.make({"note": "none", "limit": "None"}) == Sample(note=None, limit=None)
    assert Sample.make({"name": "none"}).name == "none"


def test_configurations_are_frozen() -> None:
    config = Sample()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_the_digest_tells_configurations_apart() -> None:
    @dataclass(frozen=True)
    class Other(Sample):
        pass

    digests = {Sample().digest, Sample(steps=501).digest, Sample(layers=("relu1_1",)).digest, Other().digest}
    assert len(digests) == 4
    assert Sample(weight=1).digest == Sample().digest == Sample.make({"weight": "1.0"}).digest
    assert len(Sample().digest) == 12


def test_defaults_are_checked_too() -> None:
    @dataclass(frozen=True)
    class Wrong(Config):
        steps: int = option(0, "Steps to take.", ge=1)

    with pytest.raises(ConfigError, match="'steps' must be a whole number >= 1"):
        Wrong()


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({}, ""),
        ({"ge": 1}, ">= 1"),
        ({"gt": 0, "lt": 1}, "> 0, < 1"),
        ({"ge": 0, "le": 1e6}, ">= 0, <= 1e+06"),
        ({"ge": None, "le": 0}, "<= 0"),
    ],
)
def test_bounds_as_text(bounds: dict[str, Any], text: str) -> None:
    assert bounds_text(bounds) == text


@given(st.text(max_size=8))
def test_parsing_any_text_gives_the_type_or_a_config_error(text: str) -> None:
    for hint, kinds in (
        (int, int),
        (float, float),
        (bool, bool),
        (int | None, (int, type(None))),
        (tuple[float, ...], tuple),
        (Literal["a", "b"], str),
    ):
        try:
            value = parse("x", hint, text)
        except ConfigError:
            continue
        assert isinstance(value, kinds)


# -- the file's text and the class ---------------------------------------------------------------

SOURCE = '''
{future}
from dataclasses import dataclass
from typing import Literal
from zoo.config import LARGEST_FLOAT, LARGEST_INT, Config, option

@dataclass(frozen=True)
class ThingConfig(Config):
    """Options."""
    steps: int = option(500, "How many " "steps.", ge=1)
    weight: float = option(1e3, help="How heavy.", ge=0, lt=1e9)
    shift: float = option(-0.5, "How far.", ge=-1)
    mode: Literal["fast", 'good'] = option("good", "Which way.")
    layers: tuple[str, ...] = option(("a", "b"), "Which layers.")
    limit: float | None = option(None, "How long.", gt=0)

class Thing:
    Config = ThingConfig

class Bare:
    pass
'''


def _module(text: str, folder: Path) -> ModuleType:
    path = folder / "thing.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("thing", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["thing"] = module
    try:
        spec.loader.exec_module(module)
        return module
    finally:
        del sys.modules["thing"]


@pytest.mark.parametrize("future", ["from __future__ import annotations", ""])
def test_the_text_of_a_file_says_what_its_class_says(future: str, tmp_path: Path) -> None:
    text = SOURCE.format(future=future)
    written = describe_source(text, "Thing")
    assert written[0] == OptionSpec("steps", "int", 500, "How many steps.", ">= 1")
    assert [o.name for o in written] == ["steps", "weight", "shift", "mode", "layers", "limit"]
    actual = describe(_module(text, tmp_path).ThingConfig)
    if future:
        assert actual == written
    else:
        # Python then keeps objects in place of the text; only the spelling of Optional is lost.
        assert actual[:-1] == written[:-1]
        assert dataclasses.replace(actual[-1], type=written[-1].type) == written[-1]


def test_options_of_a_base_in_another_file_come_first() -> None:
    child = """from thing import ThingConfig as Base

class MoreConfig(Base):
    more: int = option(2, "One more of its own.")
    steps: int = option(7, "Fewer of them.", ge=1)

class Thing:
    Config = MoreConfig
"""
    text = SOURCE.format(future="")
    written = describe_source(child, "Thing", {"thing": text}.__getitem__)
    assert [o.name for o in written] == [*(o.name for o in describe_source(text, "Thing")), "more"]
    assert written[0] == OptionSpec("steps", "int", 7, "Fewer of them.", ">= 1")


def test_a_class_without_options_has_none() -> None:
    assert describe_source(SOURCE.format(future=""), "Bare") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Other: pass", "Class 'Thing' is not in the file"),
        (
            SOURCE.replace("option(500", "option(STEPS"),
            "Option 'steps' of ThingConfig must have literal default and bounds",
        ),
    ],
)
def test_a_file_that_cannot_be_read_so_is_told(text: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        describe_source(text.replace("{future}", ""), "Thing")
