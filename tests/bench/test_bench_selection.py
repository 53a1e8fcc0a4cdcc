"""What a protocol takes: image sets, pairs by rule, samples that stay the same, presets that it fixes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zoo.bench.plan import plan_methods
from zoo.bench.protocol import ResolvedProtocol, find_protocol, list_protocols, load_protocol, resolve_protocol
from zoo.bench.selection import PairSample, StylesPerContent, drawn, list_pairs
from zoo.errors import ProtocolError, UnknownNameError
from zoo.imagesets import fetch_set, load_manifest
from zoo.registry import import_object, load_registry

BASE: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "contents": {"set": "pets"},
    "styles": {"set": "pets"},
    "sizes": [32],
}
CONTENTS = ("cat", "dog", "cow")
STYLES = ("dots", "lines", "waves", "leaves")
NAMES = st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), min_size=1, max_size=8, unique=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set of three contents and four styles; its images lie in ``mine`` and are not fetched yet."""
    rng = np.random.default_rng(0)

    def entry(file: str) -> dict[str, Any]:
        path = tmp_path / "mine" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(path)
        data = path.read_bytes()
        return {"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    commit = "0" * 40
    manifest = {
        "schema": 1,
        "name": "pets",
        "title": "Pets",
        "source": "https://images.invalid/pets",
        "commit": commit,
        "base": f"https://images.invalid/pets/{commit}/",
        "license": "CC0-1.0",
        "contents": [entry(f"photos/{name}.png") for name in CONTENTS],
        "styles": [entry(f"paintings/{name}.png") for name in STYLES],
    }
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "pets.yaml").write_text(yaml.safe_dump(manifest))
    monkeypatch.setattr("zoo.shipped.folder", lambda kind: tmp_path / kind)
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def fetched(folder: Path) -> Path:
    fetch_set(load_manifest("pets"), folder / "mine")
    return folder


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}))
    return path


def resolve(folder: Path, **changes: Any) -> ResolvedProtocol:
    path = write(folder, **changes)
    return resolve_protocol(load_protocol(path), path.parent, load_registry())


# --- image sets ------------------------------------------------------------------------------------------------------


def test_a_set_stands_for_its_images_in_that_role(fetched):
    protocol = resolve(fetched)
    assert tuple(image.name for image in protocol.contents) == CONTENTS
    assert tuple(image.name for image in protocol.styles) == STYLES
    assert len(protocol.pairs) == 12
    assert Path(protocol.contents[0].source).read_bytes() == (fetched / "mine" / "photos" / "cat.png").read_bytes()


def test_sets_single_images_of_them_and_files_go_together(fetched):
    mixed = [{"set": "pets", "sample": 2, "seed": 1}, "mine/photos/cat.png"]
    names = [image.name for image in resolve(fetched, contents=["mine/paintings/dots.png", *mixed[:1]]).contents]
    assert names[0] == "dots"
    assert len(names) == 3
    assert set(names[1:]) < set(CONTENTS)
    one = resolve(fetched, styles=["set:pets/paintings/waves.png", "builtin:swirls"])
    assert [image.name for image in one.styles] == ["waves", "swirls"]


def test_the_id_is_that_of_the_same_files_without_a_set(fetched):
    photos = [f"mine/photos/{name}.png" for name in CONTENTS]
    paintings = [f"mine/paintings/{name}.png" for name in STYLES]
    assert resolve(fetched).id == resolve(fetched, contents=photos, styles=paintings).id


def test_a_set_that_is_not_here_names_the_line_that_fetches_it(folder):
    with pytest.raises(ProtocolError, match=r"image set pets .*is not on this machine: run 'zoo data fetch pets'"):
        resolve(folder)
    fetch_set(load_manifest("pets"), folder / "mine")
    load_manifest("pets").path(load_manifest("pets").styles[3]).write_bytes(b"another")
    with pytest.raises(ProtocolError, match=r"leaves\.png is not the image.*run 'zoo data fetch pets'"):
        resolve(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contents": {"set": "pets", "sample": 4}}, "the set pets has 3 contents, of which 4 cannot be taken"),
        ({"contents": {"set": "pets", "samples": 4}}, "samples: is not a known key"),
        ({"contents": {"set": "pets", "sample": 0}}, "sample: .*greater than or equal to 1"),
        ({"contents": [{"set": "pets"}, {"set": "pets"}]}, "cat is listed twice"),
        ({"pairs": "none"}, "pairs.*'all' or 'zip'"),
        ({"pairs": []}, "pairs: none is listed"),
        ({"pairs": "zip"}, "as many contents as styles, not 3 and 4"),
        ({"pairs": {"sample": 13}}, "there are 12, of which 13 cannot be taken"),
        ({"pairs": {"sample": 2, "size": 1}}, "size: is not a known key"),
        ({"pairs": {"styles_per_content": 5}}, "there are 4 styles, of which 5 cannot be taken"),
        ({"pairs": [["cat", "dots"], ["cat", "dots"]]}, "listed twice"),
        ({"pairs": [["cat", "cow"]]}, "'cow' is not one of the styles"),
        ({"methods": {"gatys.paper": {"preset": "zoo"}}}, "names its preset already"),
    ],
)
def test_a_wrong_choice_is_one_sentence(changes, message, folder):
    with pytest.raises(ProtocolError, match=message) as caught:
        load_protocol(write(folder, **changes))
    assert "\n" not in str(caught.value)


def test_unknown_sets_and_images_get_a_suggestion(fetched):
    with pytest.raises(UnknownNameError, match="pets"):
        load_protocol(write(fetched, styles={"set": "pest"}))
    with pytest.raises(ProtocolError, match=r"did you mean paintings/waves\.png"):
        resolve(fetched, styles=["set:pets/paintings/wave.png"])


# --- pairs -----------------------------------------------------------------------------------------------------------


def test_images_that_no_pair_takes_are_left_out(folder):
    # Those of the set need not even be here.
    own = ["mine/photos/cat.png", "set:pets/photos/dog.png"]
    protocol = resolve(folder, contents=own, styles=["builtin:swirls"], pairs=[["cat", "swirls"]])
    assert [image.name for image in protocol.contents] == ["cat"]


def test_zip_goes_through_both_lists_at_once():
    assert list_pairs("zip", "ab", "xy") == [("a", "x"), ("b", "y")]


def test_samples_are_what_they_were():
    # Recorded: a sample that changes would change what earlier results were measured on.
    assert list_pairs(PairSample(sample=3), CONTENTS, STYLES) == [("dog", "dots"), ("dog", "leaves"), ("cow", "lines")]
    assert list_pairs(StylesPerContent(styles_per_content=1), CONTENTS, STYLES) == [
        ("cat", "dots"),
        ("dog", "dots"),
        ("cow", "lines"),
    ]
    assert sorted(drawn([f"{i:02d}" for i in range(40)], 10, 0)) == [
        "05",
        "10",
        "16",
        "26",
        "28",
        "31",
        "34",
        "35",
        "38",
        "39",
    ]


@given(NAMES, NAMES, st.data())
def test_a_sample_has_its_size_and_a_larger_one_contains_it(contents, styles, data):
    everything = len(contents) * len(styles)
    count, seed = data.draw(st.integers(1, everything)), data.draw(st.integers(-5, 5))
    sample = list_pairs(PairSample(sample=count, seed=seed), contents, styles)
    assert len(set(sample)) == len(sample) == count
    larger = list_pairs(PairSample(sample=everything, seed=seed), contents, styles)
    assert set(sample) <= set(larger) == {(c, s) for c in contents for s in styles}
    back = list_pairs(PairSample(sample=count, seed=seed), contents[::-1], styles[::-1])
    assert set(back) == set(sample)


@given(NAMES, NAMES, st.data())
def test_every_content_gets_its_number_of_styles(contents, styles, data):
    count = data.draw(st.integers(1, len(styles)))
    pairs = list_pairs(StylesPerContent(styles_per_content=count), contents, styles)
    assert [content for content, _ in pairs] == [content for content in contents for _ in range(count)]
    assert len(set(pairs)) == len(pairs)


def test_seeds_differ(fetched):
    ids = {resolve(fetched, pairs={"sample": 5, "seed": seed}).pairs for seed in range(5)}
    assert len(ids) > 1


# --- presets ---------------------------------------------------------------------------------------------------------


def test_a_protocol_may_fix_what_a_bare_name_means(fetched):
    registry = load_registry()
    protocol = resolve(fetched, methods={"gatys": {"preset": "paper", "options": {"num_steps": 9}}})
    bare, named = plan_methods(protocol, registry, ["gatys", "gatys.pytorch"])
    assert bare.label == "gatys.paper[num_steps=9]"
    assert named.label == "gatys.pytorch[num_steps=9]"
    assert protocol.id != resolve(fetched, methods={"gatys": {"options": {"num_steps": 9}}}).id
    with pytest.raises(UnknownNameError, match="paper"):
        resolve(fetched, methods={"gatys": {"preset": "papre"}})


# --- the protocols that ship -----------------------------------------------------------------------------------------

SHAPES = {
    "quick": (4, [256]),
    "standard": (12, [512]),
    "speed": (1, [256, 512, 1024, 2048, 4096]),
    "tradeoff": (4, [256]),
    "styleid": (800, [512]),
    "styleid-sample": (200, [512]),
    "adain": (220, [512]),
    "video": (6, [256]),
    "video-optimizers": (1, [176]),
    "convergence": (12, [256]),
    "cost": (1, [512]),
}


def shipped(name: str) -> ResolvedProtocol:
    path = find_protocol(name)
    return resolve_protocol(load_protocol(path), path.parent, load_registry())


def check_metrics(protocol: ResolvedProtocol) -> None:
    """ConfigError for a setting that a metric lacks."""
    for use in protocol.spec.metrics:
        import_object(load_registry().metric(use.name).implementation).Config.make(use.settings)


def test_every_protocol_that_ships_is_known_here():
    assert list_protocols() == sorted(SHAPES)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_the_pairs_and_sizes_of_a_protocol_that_ships(name):
    spec = load_protocol(find_protocol(name))
    assert (len(spec.listed), spec.sizes) == SHAPES[name]
    assert spec.description


@pytest.mark.parametrize("name", ["quick", "standard", "speed", "tradeoff"])
def test_what_ships_for_built_in_images_fits_every_method_and_metric(name):
    registry = load_registry()
    protocol = shipped(name)
    check_metrics(protocol)
    plans = plan_methods(protocol, registry, registry.match(["all"]))
    assert len(plans) == len(registry.methods)
    cells = len(protocol.pairs) * len(protocol.spec.sizes) * len(protocol.spec.strengths)
    assert {len(plan.cells) for plan in plans} == {cells}


@pytest.mark.parametrize("name", ["styleid", "styleid-sample", "adain"])
def test_what_ships_for_published_sets_finds_their_images(name, shared, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    which = name.partition("-")[0]
    with pytest.raises(ProtocolError, match=f"run 'zoo data fetch {which}'"):
        shipped(name)
    fetch_set(load_manifest(which), shared / "images" / "benchmark" / which)
    protocol = shipped(name)
    assert len(protocol.pairs) == SHAPES[name][0]
    check_metrics(protocol)


def test_the_sample_of_styleid_is_what_it_was():
    styles = sorted({style for _, style in load_protocol(find_protocol("styleid-sample")).listed})
    assert styles == ["05", "10", "16", "26", "28", "31", "34", "35", "38", "39"]
