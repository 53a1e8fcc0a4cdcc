"""``zoo study make``: what is written, and that nothing of it tells a judge which method made a picture."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from command import run as command
from PIL import Image, PngImagePlugin
from report_runs import METHODS, write_run
from study_runs import CONTENTS, STYLES, make

from zoo.apps.study.answers import Key
from zoo.bench.folder import Folder
from zoo.bench.plan import Cell

WORDS = ("gatys", "adain", "wct", "num_steps", *CONTENTS, *STYLES, "copy", "check", "repeat", "judgement")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose run's pictures say in their metadata what they are."""
    path = tmp_path_factory.mktemp("study")
    run = write_run(path / "run", contents=CONTENTS, styles=STYLES)
    for picture in (run / "outputs").rglob("*.png"):
        said = PngImagePlugin.PngInfo()
        said.add_text("method", picture.stem)
        with Image.open(picture) as opened:
            opened.save(picture, pnginfo=said, icc_profile=b"profile of adain")
    make(path)
    return path


@pytest.fixture(scope="module")
def key(folder: Path) -> Key:
    return Key.read(folder / "study" / "key.json")


def test_nothing_that_is_sent_names_a_method_or_a_picture(folder: Path):
    sent = folder / "study" / "send"
    files = [path for path in sent.rglob("*") if path.is_file()]
    assert {path.name for path in sent.iterdir()} == {"index.html", "pictures"}
    assert all(re.fullmatch(r"[0-9a-f]{12}\.webp", path.name) for path in (sent / "pictures").iterdir())
    for path in files:
        content = path.read_bytes().lower()
        assert [name for name in METHODS if name.encode() in content] == []
        # Three letters may stand in any picture's bytes by chance.
        assert [word for word in WORDS[:4] if len(word) > 4 and word.encode() in content] == []
    study = (sent / "index.html").read_text().partition('id="study">')[2].partition("</script>")[0]
    assert json.loads(study)["forms"]
    assert [word for word in WORDS if word in study.lower()] == []
    for path in (sent / "pictures").iterdir():
        with Image.open(path) as opened:
            assert opened.info.keys() <= {"loop", "background", "timestamp", "duration"}
    assert not list(sent.rglob("key*"))


def test_names_are_not_in_the_order_of_methods(key: Key):
    """Sorted by name, as a folder shows them, the pictures of a method do not stand together."""
    outputs = [one["method"] for one in key.data["pictures"].values() if one["role"] == "output"]
    assert list(key.data["pictures"]) == sorted(key.data["pictures"])
    runs = 1 + sum(a != b for a, b in itertools.pairwise(outputs))
    assert runs > 9


def test_the_key_knows_what_every_picture_is(folder: Path, key: Key):
    run = Folder(folder / "run")
    roles = {"output": 0, "content": 0, "style": 0}
    for name, one in key.data["pictures"].items():
        roles[one["role"]] += 1
        if one["role"] == "output":
            source = run.output(Cell(one["method"], one["content"], one["style"], 64, 0, 1.0))
        else:
            source = run.input(one["role"], one[one["role"]], 64)
        with Image.open(source) as a, Image.open(folder / "study" / "send" / "pictures" / f"{name}.webp") as b:
            difference = np.abs(np.asarray(a.convert("RGB"), int) - np.asarray(b.convert("RGB"), int)).mean()
            assert (a.size, difference) == (b.size, pytest.approx(0, abs=4))
    # Each input once beside the results, and once more per pair where a check shows it as a choice.
    assert roles["output"] == 27
    assert 3 < roles["content"] <= 12
    assert {one["method"] for one in key.data["pictures"].values() if "method" in one} == set(METHODS)


def test_a_check_has_a_right_answer_by_definition(key: Key):
    checks = [trial for trial in key.trials.values() if trial["kind"] == "check"]
    for trial in checks:
        assert trial["questions"] == ["content", "style"]
        for question, picture in trial["right"].items():
            shown = key.data["pictures"][picture]
            assert (shown["role"], shown[question]) == (question, trial[question])
    given = {one[role] for form in key.data["forms"] for one in form for role in ("content", "style")}
    offered = {picture for form in key.data["forms"] for one in form for picture in one["options"]}
    assert not given & offered, "a check cannot be told by the names of its files"


def test_the_same_seed_makes_the_same_study(folder: Path, key: Key, tmp_path: Path):
    again = tmp_path / "again"
    assert command("study", "make", str(folder / "run"), "-o", str(again), "--seed", "1", "--per-judge", "10",
                   "--judges", "12") == 0  # fmt: skip
    expected = {**key.data, "made": None}
    assert {**json.loads((again / "key.json").read_text()), "made": None} == expected
    page = (folder / "study" / "send" / "index.html").read_text()
    assert (again / "send" / "index.html").read_text() == page
    assert f'"study":"{key.study}"' not in page
    assert f'"id":"{key.study}"' in page


def test_make_as_a_user_would(folder: Path, tmp_path: Path, capsys):
    out = tmp_path / "small"
    arguments = ["--methods", f"{METHODS[0]},wct.zoo", "--pairs", "fox:ink,harbour:waves", "--questions", "prefer"]
    assert command("study", "make", str(folder / "run"), "--out", str(out), *arguments, "--judges", "2") == 0
    said = capsys.readouterr().out
    assert f"{out / 'send'}: send this folder" in said
    assert "2 forms of up to 7 questions; balance is exact after every 2 judges" in said
    key = Key.read(out / "key.json")
    assert key.data["methods"] == [METHODS[0], "wct.zoo"]
    assert sorted(key.data["pairs"]) == [["fox", "ink"], ["harbour", "waves"]]
    assert command("study", "make", str(folder / "run"), "--out", str(out)) == 2
    assert "a study is never overwritten" in capsys.readouterr().err
    assert command("study", "make", str(folder / "run"), "--out", ".") == 2
    assert "choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--methods", "adain.zo"], "Unknown method 'adain.zo': did you mean adain.zoo"),
        (["--pairs", "fox:sea"], "Unknown pair 'fox:sea'"),
        (["--questions", "content,colour"], "Unknown question 'colour'"),
        (["--questions", ","], "asks at least one of: content, style, prefer"),
        (["--size", "99"], "The run has no size 99: it has 64"),
        (["--strength", "0.5"], "The run has no strength 0.5: it has 1"),
        (["--choices", "4"], "A comparison of 4 pictures needs as many methods"),
        (["--methods", "wct.zoo"], "here are 1"),
    ],
)
def test_what_cannot_be_made_is_said_and_leaves_nothing(arguments, said: str, folder: Path, tmp_path: Path, capsys):
    assert command("study", "make", str(folder / "run"), "--out", str(tmp_path / "out"), *arguments) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_pair_without_a_picture_is_left_out_and_named(tmp_path: Path, capsys):
    run = write_run(tmp_path / "run")
    Folder(run).output(Cell("wct.zoo", "harbour", "waves", 64, 0, 1.0)).unlink()
    assert command("study", "make", str(run), "--out", str(tmp_path / "out"), "--sample", "2", "--seed", "1") == 0
    assert "Left out, without a picture of wct.zoo: harbour x waves." in capsys.readouterr().err
    assert len(Key.read(tmp_path / "out" / "key.json").data["pairs"]) == 2
    for picture in (run / "outputs").glob("*.png"):
        picture.unlink()
    assert command("study", "make", str(run), "--out", str(tmp_path / "other")) == 2
    assert "the same 'zoo bench' command makes pictures again" in capsys.readouterr().err
    assert command("study", "make", str(tmp_path / "out"), "--out", str(tmp_path / "other")) == 2
    assert "holds no results" in capsys.readouterr().err
