"""Recipes: their file, their table, and two tiny runs of which the second begins from the first."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train_command import both, photos, plugin, run  # noqa: F401  # fixtures

from zoo import images
from zoo.errors import ConfigError
from zoo.training import read_metadata
from zoo.training.recipe import Recipe, find_recipe, load_recipe

TWO = """
schema: 1
name: two
runs:
  - {name: first, method: tint-net, share: 1, train: {steps: 5}, notes: Of the recipe.}
  - {name: second, method: tint-net, share: 3, task: {start: {run: first}}, train: {steps: 4, lr: 1.0e-9}}
join:
  - {name: both, parts: {one: first, two: second}}
"""


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch):
    """Drawing takes longer than all of a tiny run."""
    monkeypatch.setattr("zoo.training.export.plot_losses", lambda folder: None)


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(TWO)
    return path


def steps(folder: Path) -> int:
    return json.loads((folder / "run.json").read_text())["step"]


def test_runs_begin_from_one_another_and_are_joined(run, both, recipe, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out"
    assert run("recipe", recipe, *both, "--out", out, "--batch-size", "1") == 0
    first, second = (load_file(out / name / "model.safetensors") for name in ("first", "second"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (steps(out / "first"), steps(out / "second")) == (5, 4)
    record = json.loads((out / "second/run.json").read_text())
    assert record["config"]["batch_size"] == 1
    # A folder of this machine means nothing on a card.
    assert record["task"]["start"] == "first/model.safetensors"
    assert record["started_from"].startswith("start first/model.safetensors (sha256 ")
    joined = load_file(out / "both.safetensors")
    assert set(joined) == {f"{part}.{key}" for part in ("one", "two") for key in first}
    assert torch.equal(joined["one.0.weight"], first["0.weight"])
    facts = read_metadata(out / "both.safetensors")
    assert (facts["method"], facts["step"]) == ("tint-net", 9)
    card = (out / "both.md").read_text()
    assert card.count("| Hardware |") == 2
    assert "Of the recipe." in card
    assert str(tmp_path) not in card

    capsys.readouterr()
    assert run("recipe", recipe, *both, "--out", out, "--batch-size", "1") == 0
    said = capsys.readouterr().err
    assert said.count("done before") == 2
    assert run("recipe", recipe, *both, "--out", out, "--batch-size", "2") == 2
    assert "another batch_size" in capsys.readouterr().err


def test_runs_can_be_chosen_resumed_and_given_more(run, both, recipe, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out"
    assert run("recipe", recipe, *both, "--out", out, "--only", "second") == 2
    assert "needs the weights of first" in capsys.readouterr().err
    assert not out.exists()
    assert run("recipe", recipe, *both, "--out", out, "--only", "first") == 0
    assert not (out / "second").exists()
    assert "waits for second" in capsys.readouterr().err
    # As left by a run that was killed: a checkpoint, but no mark that it is done.
    (out / "first/done.json").unlink()
    assert run("recipe", recipe, *both, "--out", out) == 2
    assert "--resume" in capsys.readouterr().err
    assert run("recipe", recipe, *both, "--out", out, "--resume") == 0
    assert (steps(out / "first"), steps(out / "second")) == (5, 4)
    assert run("recipe", recipe, *both, "--out", out, "--only", "first", "--steps", "8", "--resume") == 0
    assert steps(out / "first") == 8


def test_a_run_that_diverges_does_not_end_the_others(run, both, recipe, tmp_path, capsys):  # noqa: F811
    third = "  - {name: third, method: tint-net, share: 1, train: {steps: 2}}\njoin:"
    recipe.write_text(TWO.replace("train: {steps: 5}", "train: {steps: 5, lr: 1.0e+6}").replace("join:", third))
    out = tmp_path / "out"
    assert run("recipe", recipe, *both, "--out", out, "--quiet") == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("zoo: first failed: The gradient is no longer finite at step ")
    assert said[1:] == ["zoo: second was left out: it needs the weights of first."]
    assert steps(out / "third") == 2
    assert not (out / "both.safetensors").exists()
    assert not (out / "second").exists()


def test_hours_are_divided_by_shares(run, both, recipe, tmp_path, capsys):  # noqa: F811
    out, hours = tmp_path / "out", 0.4 / 3600
    assert run("recipe", recipe, *both, "--out", out, "--hours", str(hours), "--steps", "1000000") == 0
    for name, share in (("first", 0.25), ("second", 0.75)):
        config = json.loads((out / name / "run.json").read_text())["config"]
        assert config["time_limit"] == pytest.approx(60 * hours * share)
        assert 0 < steps(out / name) < 1_000_000
        assert json.loads((out / name / "done.json").read_text())["ended"] == "time"
    before = steps(out / "first")
    assert run("recipe", recipe, *both, "--out", out, "--hours", str(hours), "--steps", "1000000") == 0
    assert steps(out / "first") == before


def test_the_shorter_of_a_runs_share_and_its_own_limit_counts(run, both, recipe, tmp_path):  # noqa: F811
    for own, expected in (("30", 15.0), ("0.5", 0.5)):
        out = tmp_path / own
        # A quarter of an hour is the first run's share of the hour.
        given = ["--hours", "1", "--time-limit", own, "--only", "first"]
        assert run("recipe", recipe, *both, "--out", out, *given) == 0
        assert json.loads((out / "first/run.json").read_text())["config"]["time_limit"] == expected


def test_an_option_is_the_same_as_a_number_and_as_text(run, both, recipe, tmp_path, capsys):  # noqa: F811
    # YAML takes 1e-2 for text.
    recipe.write_text(TWO.replace("train: {steps: 5}", "train: {steps: 5, batch_size: 1, lr: 1e-2, zoom: [1, 1.5]}"))
    out = tmp_path / "out"
    assert run("recipe", recipe, *both, "--out", out, "--only", "first") == 0
    same = ["--batch-size", "1", "--lr", "0.01", "--zoom", "1,1.5"]
    for given in ([], same):
        capsys.readouterr()
        assert run("recipe", recipe, *both, "--out", out, "--only", "first", *given) == 0
        assert "first: done before" in capsys.readouterr().err
    assert run("recipe", recipe, *both, "--out", out, "--only", "first", "--batch-size", "2") == 2
    assert "another batch_size" in capsys.readouterr().err


def test_a_run_that_goes_on_ends_where_the_recipe_says(run, both, recipe, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    given = ["--only", "first", "--steps", "1000000"]
    assert run("recipe", recipe, *both, "--out", out, *given, "--hours", "0.0001") == 0
    reached = steps(out / "first")
    # Without hours there is no limit any more, although the run was begun with one.
    more = ["--only", "first", "--steps", str(reached + 3), "--resume"]
    assert run("recipe", recipe, *both, "--out", out, *more) == 0
    assert steps(out / "first") == reached + 3
    assert json.loads((out / "first/done.json").read_text())["ended"] == "steps"


def test_a_fault_is_found_before_anything_is_trained(run, both, recipe, photos, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out"
    recipe.write_text(TWO.replace("lr: 1.0e-9", "lr: -1"))
    assert run("recipe", recipe, *both, "--out", out) == 2
    said = capsys.readouterr().err
    assert "run second" in said
    assert "lr" in said
    recipe.write_text(TWO)
    assert run("recipe", recipe, "--content-dir", photos / "content", "--out", out) == 2
    assert "needs style images" in capsys.readouterr().err
    for changed, missing in (
        ("task: {start: none.safetensors}", "none.safetensors"),
        ("init_from: none.pt", "none.pt"),
    ):
        recipe.write_text(TWO.replace("task: {start: {run: first}}", changed))
        assert run("recipe", recipe, *both, "--out", out) == 2
        assert f"The run second needs {missing}, and there is no such file" in capsys.readouterr().err
    recipe.write_text(TWO)
    given = ["--content-dir", photos / "content", "--style-dir", photos / "nothing"]
    assert run("recipe", recipe, *given, "--out", out) == 2
    assert "does not exist" in capsys.readouterr().err
    assert run("recipe", recipe, *both, "--held-out-style", "none.png", "--out", out) == 2
    assert "does not exist" in capsys.readouterr().err
    for flags, expected in (
        (["--hours", "0"], "--hours"),
        (["--only", "frist"], "did you mean first"),
        (["--width", "3"], "Unknown option"),
        (["--init-from", "x.safetensors"], "Unknown option"),
    ):
        assert run("recipe", recipe, *both, "--out", out, *flags) == 2
        assert expected in capsys.readouterr().err
    assert run("recipe", "zooo", "--plan") == 2
    assert "did you mean zoo" in capsys.readouterr().err
    assert not out.exists()


FAULTS = {
    "unknown key": ("share: 1", "share: 1, speed: 2", "speed"),
    "negative share": ("share: 1", "share: -1", "share"),
    "later run": (
        "method: tint-net, share: 1",
        "method: tint-net, share: 1, init_from: {run: second}",
        "no run before",
    ),
    "twice": ("name: second", "name: first", "twice"),
    "unknown part": ("two: second", "two: third", "third"),
}


@pytest.mark.parametrize("case", list(FAULTS))
def test_a_malformed_recipe_is_refused(case, recipe):
    old, new, expected = FAULTS[case]
    assert old in TWO
    recipe.write_text(TWO.replace(old, new, 1))
    with pytest.raises(ConfigError, match=expected):
        load_recipe(recipe)


def test_the_recipe_that_ships_trains_every_level_and_joins_them(run, capsys):  # noqa: F811
    shipped = load_recipe(find_recipe("zoo"))
    assert isinstance(shipped, Recipe)
    levels = {r.name: r.task["level"] for r in shipped.runs if r.method == "wct"}
    assert set(levels.values()) == {1, 2, 3, 4, 5}
    joined = {join.name: join.parts for join in shipped.join}
    assert {prefix: levels[name] for prefix, name in joined["wct"].items()} == {f"level{k}": k for k in range(1, 6)}
    for method in ("johnson", "texture-nets"):
        assert set(images.builtin_styles()) <= set(joined[method])
        for prefix, name in joined[method].items():
            run_of_style = next(r for r in shipped.runs if r.name == name)
            assert run_of_style.task["style"] == f"builtin:{prefix.removesuffix('-texture')}"
            assert (run_of_style.task.get("mode") == "texture") == prefix.endswith("-texture")
    decoders = [r for r in shipped.runs if r.method == "wct"]
    lower = {levels[r.name]: levels[r.inputs[0]] for r in decoders if "lower" in r.task}
    assert lower == {level: level - 1 for level in range(2, 6)}
    # Every other run but the first goes on with its own level.
    assert all(levels[r.name] == levels[r.inputs[0]] for r in decoders[1:] if "lower" not in r.task)
    assert sum(shipped.minutes(r, 10) or 0 for r in shipped.runs) == pytest.approx(600)
    assert run("recipe", "zoo", "--plan", "--hours", "10") == 0
    said = capsys.readouterr().out
    assert all(r.name in said for r in shipped.runs)


def test_the_wheel_carries_the_recipes():
    root = Path(__file__).resolve().parents[2]
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["benchmarks/recipes"] == "zoo/recipes"
