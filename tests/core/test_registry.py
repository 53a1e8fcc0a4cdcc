"""registry.yaml, plugins and the code agree, and every malformed entry is told in one sentence."""

from __future__ import annotations

import ast
import dataclasses
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import zoo
from zoo.config import describe
from zoo.errors import RegistryError, UnknownNameError
from zoo.modules import module_source
from zoo.registry import (
    ENTRY_POINT_GROUP,
    PACKAGE,
    MethodEntry,
    Registry,
    build_registry,
    import_object,
    load_registry,
    parse_registry,
    registry_path,
)

PLUGINS = Path(__file__).parents[1] / "plugins"
REGISTRY = load_registry()


def _method(**changes: Any) -> dict[str, Any]:
    return {
        "class": "zoo.methods.one:One",
        "title": "One",
        "authors": "A. Author",
        "year": 2016,
        "paper": "https://example.org/one",
        "bibtex": "@misc{one}",
        "taxonomy": {"optimizes": "image", "styles": "any", "statistics": "parametric"},
        "default": "paper",
        "presets": {"paper": {"summary": "As in the paper", "options": {"num_steps": 500}}},
        **changes,
    }


def _checkpoint(**changes: Any) -> dict[str, Any]:
    return {
        "summary": "Trained",
        "url": "https://example.org/weights",
        "sha256": "0" * 64,
        "bytes": 10,
        "parameters": 5,
        "license": "CC0-1.0",
        "provenance": {"kind": "trained"},
        **changes,
    }


def _file(folder: Path, content: dict[str, Any] | str) -> Path:
    path = folder / "registry.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def _registry(**methods: dict[str, Any]) -> dict[str, Any]:
    return {"schema": 1, "methods": methods, "encoders": {}, "metrics": {}}


def _build(folder: Path, **methods: dict[str, Any]) -> Registry:
    return build_registry(_file(folder, _registry(**methods)), [])


# -- schema --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "blue"}, "methods.one.colour: is not a known key"),
        ({"year": "soon"}, "methods.one.year"),
        ({"class": "no colon"}, "methods.one.class"),
        ({"taxonomy": {"optimizes": "image", "styles": "several", "statistics": "patches"}}, "methods.one.taxonomy"),
        ({"default": "code"}, "the default 'code' is neither a preset nor a checkpoint"),
        ({"presets": {"paper": {"summary": "s", "steps": 3}}}, "methods.one.presets.paper.steps: is not a known key"),
        ({"presets": {"paper": {"summary": "s", "checkpoint": "w"}}}, "checkpoint 'w', which is not listed"),
        ({"checkpoints": {"paper": _checkpoint()}}, "paper names a preset and a checkpoint"),
        ({"checkpoints": {"w": _checkpoint(file="a", url="b")}}, "give either 'file' or 'url'"),
        ({"checkpoints": {"w": _checkpoint(url=None)}}, "give either 'file' or 'url'"),
        ({"checkpoints": {"w": _checkpoint(file="no/such.safetensors", url=None)}}, "no/such.safetensors is missing"),
        ({"encoder": "vgg99"}, "unknown encoder 'vgg99'"),
    ],
)
def test_a_malformed_method_is_one_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistryError) as caught:
        _build(tmp_path, one=_method(**changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["title", "class", "taxonomy", "default"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    entry = _method()
    del entry[key]
    with pytest.raises(RegistryError, match=f"methods.one.{key}: Field required"):
        _build(tmp_path, one=entry)


@pytest.mark.parametrize("name", ["all", "two.words", "with space", ""])
def test_a_name_that_cannot_be_addressed_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="a method's name is letters"):
        _build(tmp_path, **{name: _method()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema: 1\nmethods: {}\nmethods: {}\n", r"registry.yaml: 'methods' appears twice \(line 3\)"),
        ("methods:\n  a: {x: 1, x: 2}\n", r"'x' appears twice \(line 2\)"),
        ("methods: {a: 1\n", "registry.yaml is not valid YAML at line"),
        ("methods: {{one}}\n", r"registry.yaml: A key is itself a mapping or a list \(line 1\)"),
        ("schema: 2\nmethods: {}\nencoders: {}\nmetrics: {}\n", "registry.yaml: schema"),
        ("schema: 1\nmethods: {}\nencoders: {}\nmetrics: {}\nextra: 1\n", "extra: is not a known key"),
        ("", "registry.yaml: top level"),
    ],
)
def test_a_malformed_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        parse_registry(_file(tmp_path, text))


def test_an_absent_or_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="does not exist"):
        parse_registry(tmp_path / "none.yaml")
    with pytest.raises(RegistryError, match="cannot be read"):
        parse_registry(tmp_path)
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"a: \xe9\n")
    with pytest.raises(RegistryError, match="cannot be read"):
        parse_registry(path)


def test_entries_are_frozen(tmp_path: Path) -> None:
    entry = _build(tmp_path, one=_method()).methods["one"]
    with pytest.raises(Exception, match="frozen"):
        entry.title = "Other"  # pyright: ignore[reportAttributeAccessIssue]


# -- names ---------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Registry:
    two = _method(
        default="zoo",
        presets={
            "fast": {"summary": "Fast", "options": {"width": 8}, "checkpoint": "zoo"},
            "raw": {"summary": "Untrained"},
        },
        checkpoints={"zoo": _checkpoint(options={"width": 32, "depth": 2})},
    )
    return _build(tmp_path, one=_method(), two=two, cnn_one=_method())


def test_a_bare_name_is_its_default(small: Registry) -> None:
    found = small.resolve("one")
    assert (found.label, found.options, found.checkpoint) == ("one.paper", {"num_steps": 500}, None)
    assert found.summary == "As in the paper"
    assert small.resolve("two") == small.resolve("two.zoo")


def test_a_checkpoint_brings_its_options_and_a_preset_overrides_them(small: Registry) -> None:
    assert small.resolve("two.zoo").options == {"width": 32, "depth": 2}
    fast = small.resolve("two.fast")
    assert fast.options == {"width": 8, "depth": 2}
    assert fast.checkpoint is small.methods["two"].checkpoints["zoo"]
    assert small.resolve("two.raw").checkpoint is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onee", "Unknown method 'onee': did you mean one"),
        ("one.papr", "Unknown preset or checkpoint 'one.papr': did you mean one.paper"),
        ("x" * 300, f"Unknown method '{'x' * 39}... (302 characters): known: cnn_one, one, two"),
        (f"one.{'x' * 300}", "... (306 characters): known: one."),
        ("xyzzy", "Unknown method 'xyzzy': known: cnn_one, one, two"),
    ],
)
def test_a_typo_gets_a_suggestion(small: Registry, name: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        small.resolve(name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["all"], ["one", "two", "cnn_one"]),
        (["*"], ["one", "two", "cnn_one"]),
        (["*one"], ["one", "cnn_one"]),
        (["two.*"], ["two.fast", "two.raw", "two.zoo"]),
        (["*.zoo"], ["two.zoo"]),
        (["one", "o*", "one.paper"], ["one", "one.paper"]),
        ([], []),
    ],
)
def test_patterns(small: Registry, patterns: list[str], names: list[str]) -> None:
    assert small.match(patterns) == names


@pytest.mark.parametrize("pattern", ["x*", "one.x*", "[z]", "nothing"])
def test_a_pattern_without_a_match_is_an_error(small: Registry, pattern: str) -> None:
    with pytest.raises(UnknownNameError):
        small.match([pattern])


def test_an_unknown_metric_gets_a_suggestion(tmp_path: Path) -> None:
    content = _registry()
    content["metrics"]["ssim"] = {
        "class": "zoo.metrics.ssim:SSIM",
        "title": "SSIM",
        "measures": "content",
        "direction": "higher",
        "range": "[-1, 1]",
        "unit": "",
        "version": 1,
        "reference": "Wang 2004",
    }
    registry = build_registry(_file(tmp_path, content), [])
    assert registry.metric("ssim").title == "SSIM"
    with pytest.raises(UnknownNameError, match="did you mean ssim"):
        registry.metric("sim")


# -- this installation's registry and the code ---------------------------------------------------


def _implementations(folder: str) -> set[str]:
    # `base` holds what the files of a folder share, `fidelity` what the metrics of sets do.
    shared = ("base", "fidelity")
    return {f"zoo.{folder}.{p.stem}" for p in (PACKAGE / folder).glob("[!_]*.py") if p.stem not in shared}


def _modules(entries: Any) -> set[str]:
    return {entry.implementation.partition(":")[0] for entry in entries}


OWN = {name: entry for name, entry in REGISTRY.methods.items() if name not in REGISTRY.plugins}


def test_every_method_file_has_an_entry_and_every_entry_a_file() -> None:
    assert _modules(OWN.values()) == _implementations("methods")


def test_every_metric_file_has_an_entry_and_every_entry_a_file() -> None:
    assert _modules(REGISTRY.metrics.values()) == _implementations("metrics")


@pytest.mark.parametrize(
    "reference", sorted({e.implementation for e in (*OWN.values(), *REGISTRY.metrics.values())}), ids=str
)
def test_every_class_is_there_and_importable(reference: str) -> None:
    module, _, name = reference.partition(":")
    assert name in {n.name for n in ast.parse(module_source(module)).body if isinstance(n, ast.ClassDef)}
    assert import_object(reference).__name__ == name


@pytest.mark.parametrize("name", sorted(OWN))
def test_the_taxonomy_says_what_the_traits_say(name: str) -> None:
    """Tables and plans read the one, the harness the other: which styles a method takes, and whether it optimises."""
    entry, traits = OWN[name], import_object(OWN[name].implementation).traits
    assert (entry.taxonomy.styles == "any") == (traits.styles == "any")
    assert (entry.taxonomy.optimizes == "image") == (traits.iterative)


LABELS = [f"{name}.{tag}" for name, entry in REGISTRY.methods.items() for tag in entry.tags]


@pytest.mark.parametrize("label", LABELS)
def test_every_preset_is_a_valid_configuration(label: str) -> None:
    resolved = REGISTRY.resolve(label)
    cls = import_object(resolved.entry.implementation)
    config = cls.Config.make(resolved.options)
    shown = {spec.name: spec.default for spec in REGISTRY.options(label)}
    assert set(shown) == {spec.name for spec in describe(cls.Config)}
    # What `zoo info` shows without importing the method is what the method is given.
    assert cls.Config.make(shown) == config
    assert {name: getattr(config, name) for name in resolved.options} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in resolved.options.items()
    }


@pytest.mark.parametrize("name", sorted(REGISTRY.methods))
def test_every_entry_is_complete(name: str) -> None:
    entry = REGISTRY.methods[name]
    assert entry.paper.startswith("http")
    assert entry.bibtex.lstrip().startswith("@")
    assert str(entry.year) in entry.bibtex
    summaries = [*(p.summary for p in entry.presets.values()), *(c.summary for c in entry.checkpoints.values())]
    assert all(len(s.split()) >= 2 for s in summaries)


def test_every_encoder_is_used_by_name_and_known(tmp_path: Path) -> None:
    used = {e.encoder for e in (*REGISTRY.methods.values(), *REGISTRY.metrics.values()) if e.encoder}
    assert used <= set(REGISTRY.encoders)


def test_the_file_at_the_root_is_the_one_in_use() -> None:
    assert registry_path().name == "registry.yaml"
    assert parse_registry(registry_path()).methods.keys() == OWN.keys()


def test_list_methods_takes_a_wildcard() -> None:
    assert zoo.list_methods() == list(REGISTRY.methods)


# -- plugins -------------------------------------------------------------------------------------


def _python(code: str, *folders: Path) -> Any:
    """What ``code`` prints as JSON in a fresh process that sees the plugins in ``folders``."""
    path = os.pathsep.join([str(PACKAGE.parent), *map(str, folders)])
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_the_listing_imports_neither_torch_nor_pandas_nor_a_method() -> None:
    code = """
import json, sys
import zoo
registry = zoo.load_registry()
options = {name: len(registry.options(name)) for name in registry.methods}
heavy = [m for m in sys.modules if m.split(".")[0] in ("torch", "torchvision", "timm", "pandas", "zoo_tint")]
heavy += [m for m in sys.modules if m.startswith(("zoo.methods.", "zoo.stylizer"))]
print(json.dumps({"plugins": sorted(registry.plugins), "options": options, "heavy": heavy}))
"""
    found = _python(code, PLUGINS / "good")
    assert found["plugins"] == ["drift", "tint"]
    assert found["options"]["tint"] == 2
    assert found["options"]["drift"] == 4
    assert found["heavy"] == []


def test_a_plugin_is_loaded_and_addressed_like_any_method() -> None:
    code = """
import json
import zoo
model = zoo.load("tint.soft", grain=0.5, device="cpu")
registry = zoo.load_registry()
print(json.dumps([model.name, model.config.to_dict(), registry.match(["tint.*"]), zoo.list_methods("dr*")]))
"""
    assert _python(code, PLUGINS / "good") == [
        "tint.soft",
        {"grain": 0.5, "detail": "soft"},
        ["tint.standard", "tint.soft"],
        ["drift"],
    ]


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    folder = tmp_path / "faulty"
    shutil.copytree(PLUGINS / "faulty", folder)
    (folder / "zoo_faulty" / "syntax.py").write_text("class Method\n", encoding="utf-8")
    (folder / "zoo_faulty" / "latin.py").write_bytes(b'"""Not UTF-8: \xe9."""\nclass Method: pass\n')
    return folder


def test_a_broken_plugin_is_reported_and_breaks_nothing_else(faulty: Path) -> None:
    code = """
import json
import zoo
from zoo.errors import RegistryError
registry = zoo.load_registry()
try:
    registry.resolve("no_entry")
except RegistryError as error:
    told = str(error)
print(json.dumps({"plugins": sorted(registry.plugins), "broken": dict(registry.broken), "told": told}))
"""
    found = _python(code, faulty, PLUGINS / "good")
    assert found["plugins"] == ["drift", "fine", "tint"]
    broken = found["broken"]
    assert found["told"] == f"Plugin 'no_entry' cannot be used: {broken['no_entry']}"
    wanted = {
        "absent_module": "Module 'zoo_nowhere.method' is not installed",
        "absent_class": "has no class attribute ENTRY",
        "no_entry": "has no class attribute ENTRY",
        "unknown_key": "colour: is not a known key",
        "computed": "must be a literal dictionary",
        "bad_default": "the default 'y' is neither a preset nor a checkpoint",
        "a_list": "must be a literal dictionary",
        "bad.name": "a method's name is letters",
        "no_colon": "must read module:Class",
        "bad_syntax": "expected ':'",
        "not_text": "decode",
    }
    assert broken.keys() == wanted.keys()
    for name, message in wanted.items():
        assert message in broken[name], name


def _point(name: str, value: str) -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint(name=name, value=value, group=ENTRY_POINT_GROUP)


def test_two_methods_of_one_name_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGINS / "good"))
    path = _file(tmp_path, _registry(tint=_method()))
    with pytest.raises(RegistryError, match=r"Two methods are called 'tint'.*plugin zoo_tint.tint:Tint"):
        build_registry(path, [_point("tint", "zoo_tint.tint:Tint")])
    path = _file(tmp_path, _registry())
    with pytest.raises(RegistryError, match="Two methods are called 'hue'"):
        build_registry(path, [_point("hue", "zoo_tint.tint:Tint"), _point("hue", "zoo_tint.drift:Drift")])


def test_a_plugin_names_its_class_in_the_entry_point_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sly.py").write_text(
        "class Sly:\n    ENTRY = " + repr({**_method(), "class": "os:system"}) + "\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = build_registry(_file(tmp_path, _registry()), [_point("sly", "sly:Sly")])
    assert registry.methods["sly"].implementation == "sly:Sly"


@pytest.mark.parametrize("reference", ["zoo.nowhere:Thing", "zoo.errors:Nothing"])
def test_an_object_that_cannot_be_imported_is_told(reference: str) -> None:
    with pytest.raises(RegistryError, match=f"{reference} cannot be imported"):
        import_object(reference)


@pytest.mark.parametrize("module", ["zoo.nowhere", "zoo.errors.deeper", "nowhere", "sys", "zoo"])
def test_source_of_a_module(module: str) -> None:
    if module == "zoo":
        assert "A model zoo" in module_source(module)
    else:
        with pytest.raises(RegistryError, match="is not installed"):
            module_source(module)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """``zoo.load`` with a registry of one plugin."""
    monkeypatch.syspath_prepend(str(PLUGINS / "good"))
    registry = build_registry(_file(tmp_path, _registry()), [_point("drift", "zoo_tint.drift:Drift")])
    monkeypatch.setattr("zoo.loading.load_registry", lambda: registry)
    return zoo.load


def test_load_joins_preset_and_options(loaded: Callable[..., Any]) -> None:
    model = loaded("drift.fast", learning_rate="0.5", device="cpu")
    assert (model.config.num_steps, model.config.learning_rate, model.name) == (2, 0.5, "drift.fast")
    assert loaded("drift.fast", num_steps=7).config.num_steps == 7


def test_registry_dataclass_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        REGISTRY.methods = {}  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(next(iter(REGISTRY.methods.values()), MethodEntry.model_validate(_method())), MethodEntry)
