"""Protocols: what they accept, what their id depends on, and the cells they become."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from zoo.bench.plan import baseline_cells, plan_methods
from zoo.bench.protocol import (
    ResolvedProtocol,
    find_protocol,
    list_protocols,
    load_protocol,
    resolve_protocol,
)
from zoo.errors import ProtocolError, UnknownNameError
from zoo.registry import MethodEntry, MetricEntry, Registry

BASE: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "contents": ["photo.png", {"image": "other.png", "name": "second"}],
    "styles": ["paint.png"],
    "sizes": [64, 32],
    "metrics": ["ssim", {"name": "ssim", "settings": {"channels": "rgb"}}],
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    """Two methods whose options are read from this project's test plugin."""

    def method(cls: str, optimizes: str, presets: dict[str, Any]) -> MethodEntry:
        return MethodEntry.model_validate(
            {
                "class": f"bench_fakes:{cls}",
                "title": cls,
                "authors": "Nobody",
                "year": 2000,
                "paper": "",
                "bibtex": "",
                "taxonomy": {"optimizes": optimizes, "styles": "any", "statistics": "parametric"},
                "default": next(iter(presets)),
                "encoder": "vgg19",
                "presets": presets,
            }
        )

    plain = {"plain": {"summary": ""}}
    metric = MetricEntry.model_validate(
        {
            "class": "zoo.metrics.ssim:SSIM",
            "title": "",
            "measures": "content",
            "direction": "higher",
            "range": "[0, 1]",
            "unit": "",
            "version": 1,
            "reference": "",
        }
    )
    stepper = {"plain": {"summary": ""}, "slow": {"summary": "", "options": {"pause": 0.5}}}
    methods = {"tint": method("Tint", "model", plain), "stepper": method("Stepper", "image", stepper)}
    return Registry(methods, {}, {"ssim": metric})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("photo", "other", "paint"):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}))
    return path


def resolve(folder: Path, registry: Registry, **changes: Any) -> ResolvedProtocol:
    path = write(folder, **changes)
    return resolve_protocol(load_protocol(path), path.parent, registry)


def test_the_id_names_and_hashes_what_a_number_depends_on(folder, registry, tmp_path):
    base = resolve(folder, registry)
    assert base.id.startswith("tiny@")
    assert len(base.id) == len("tiny@") + 12
    assert resolve(folder, registry, description="other words").id == base.id
    assert resolve(folder, registry, strengths=[1]).id == base.id, "a default spelt out is no change"
    changed = [
        resolve(folder, registry, sizes=[64]),
        resolve(folder, registry, seeds=[1]),
        resolve(folder, registry, metrics=["ssim"]),
        resolve(folder, registry, timing={"repeats": 3}),
        resolve(folder, registry, methods={"tint": {"timing": {"repeats": 3}}}),
        resolve(folder, registry, optimisation={"options": {"num_steps": 9}}),
        resolve(folder, registry, style_size=128),
    ]
    assert len({base.id, *(protocol.id for protocol in changed)}) == len(changed) + 1


def test_the_id_follows_the_images_bytes_and_not_their_place(folder, registry, tmp_path):
    base = resolve(folder, registry)
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved, ignore=lambda *_: ["elsewhere"])
    assert resolve(moved, registry).id == base.id
    shutil.copyfile(moved / "paint.png", moved / "photo.png")
    assert resolve(moved, registry).id != base.id


def test_the_id_follows_the_version_of_a_metric(folder, registry):
    newer = Registry(registry.methods, {}, {"ssim": registry.metrics["ssim"].model_copy(update={"version": 2})})
    assert resolve(folder, newer).id != resolve(folder, registry).id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "colour: is not a known key"),
        ({"timing": {"repeat": 3}}, r"timing\.repeat: is not a known key"),
        ({"sizes": []}, "sizes"),
        ({"sizes": [-1]}, "sizes"),
        ({"sizes": [64, 64]}, "64 is listed twice"),
        ({"strengths": [1.5]}, "strengths"),
        ({"timing": {"repeats": 0}}, "repeats"),
        ({"contents": ["photo.png", "photo.png"]}, "photo is listed twice"),
        ({"contents": [{"image": "photo.png", "name": "a__b"}]}, "two underscores"),
        ({"pairs": [["photo", "nothing"]]}, "'nothing' is not one of the styles"),
        ({"metrics": ["ssim", "ssim"]}, "ssim is listed twice"),
        ({"schema": 2}, "schema"),
        ({"limits": {"memory": 2}}, "memory"),
    ],
)
def test_a_malformed_protocol_is_one_sentence_that_names_the_place(changes, message, folder):
    with pytest.raises(ProtocolError, match=message) as caught:
        load_protocol(write(folder, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {"seconds": float("inf")}},
        {"timing": {"budget": float("inf")}},
        {"methods": {"stepper": {"options": {"pause": float("nan")}}}},
        {"metrics": [{"name": "ssim", "settings": {"sigma": float("inf")}}]},
    ],
)
def test_numbers_that_an_id_cannot_hold_are_refused(changes, folder):
    with pytest.raises(ProtocolError, match="finite"):
        load_protocol(write(folder, **changes))


def test_bad_yaml_and_missing_files_are_clear_errors(folder):
    (folder / "bad.yaml").write_text("name: [unclosed")
    with pytest.raises(ProtocolError, match=r"bad\.yaml is not valid YAML"):
        load_protocol(folder / "bad.yaml")
    with pytest.raises(ProtocolError, match="no protocol file"):
        find_protocol(str(folder / "none.yaml"))
    with pytest.raises(UnknownNameError, match="quick"):
        find_protocol("quik")


def test_images_are_checked(folder, registry):
    with pytest.raises(ProtocolError, match="missing"):
        resolve(folder, registry, styles=["missing.png"])
    with pytest.raises(ProtocolError, match="not the image it names"):
        resolve(folder, registry, styles=[{"image": "paint.png", "sha256": "0" * 64}])
    right = resolve(folder, registry).styles[0].sha256
    assert resolve(folder, registry, styles=[{"image": "paint.png", "sha256": right}]).styles[0].sha256 == right


def test_unknown_metrics_methods_and_options_get_a_suggestion(folder, registry):
    with pytest.raises(UnknownNameError, match="ssim"):
        resolve(folder, registry, metrics=["sim"])
    with pytest.raises(UnknownNameError, match="stepper"):
        resolve(folder, registry, methods={"steper": {}})
    protocol = resolve(folder, registry, methods={"stepper": {"options": {"num_step": 3}}})
    with pytest.raises(UnknownNameError, match="num_steps"):
        plan_methods(protocol, registry, ["stepper"])


def test_wrong_values_are_named_before_anything_is_measured(folder, registry):
    with pytest.raises(ProtocolError, match=r"tiny, ssim\[chanels=rgb\].*did you mean 'channels'"):
        resolve(folder, registry, metrics=[{"name": "ssim", "settings": {"chanels": "rgb"}}])
    with pytest.raises(ProtocolError, match=r"tiny, ssim\[channels=red\].*luma"):
        resolve(folder, registry, metrics=[{"name": "ssim", "settings": {"channels": "red"}}])
    protocol = resolve(folder, registry, methods={"stepper": {"options": {"num_steps": "many"}}})
    with pytest.raises(ProtocolError, match=r"tiny, stepper\.plain.*num_steps"):
        plan_methods(protocol, registry, ["stepper"])


def test_settings_go_from_general_to_particular(folder, registry):
    protocol = resolve(
        folder,
        registry,
        timing={"repeats": 7},
        optimisation={"options": {"num_steps": 50, "learning_rate": 1}, "timing": {"repeats": 1}},
        methods={"stepper": {"options": {"num_steps": 60}}, "stepper.slow": {"options": {"pause": 0.25}}},
    )
    tint, plain, slow = plan_methods(protocol, registry, ["tint", "stepper", "stepper.slow"])
    assert (tint.label, tint.options, tint.timing.repeats) == ("tint.plain", {}, 7)
    # learning_rate is no option of this optimiser, so the general entry leaves it out.
    assert plain.label == "stepper.plain[num_steps=60]"
    assert slow.label == "stepper.slow[num_steps=60,pause=0.25]"
    assert plain.timing.repeats == 1
    assert plain.encoder == "vgg19"


def test_cells_are_every_combination_smallest_size_first(folder, registry):
    protocol = resolve(folder, registry, seeds=[0, 1], strengths=[1.0, 0.5])
    (plan,) = plan_methods(protocol, registry, ["tint"])
    assert len(plan.cells) == len(set(plan.cells)) == 2 * 2 * 2 * 2
    assert [cell.size for cell in plan.cells] == [32] * 8 + [64] * 8
    names = {cell.filename for cell in plan.cells}
    assert len(names) == 16
    assert "tint.plain__second__paint__32__seed1__strength0.5.png" in names
    assert len(baseline_cells(protocol)) == 3 * 2 * 2
    listed = resolve(folder, registry, pairs=[["second", "paint"]], sizes=[0])
    assert [(c.content, c.style, c.size) for c in plan_methods(listed, registry, ["tint"])[0].cells] == [
        ("second", "paint", 0)
    ]


def test_a_method_named_twice_is_planned_once(folder, registry):
    protocol = resolve(folder, registry)
    assert len(plan_methods(protocol, registry, ["tint", "tint.plain"])) == 1


def test_a_labels_brackets_stay_out_of_file_names(folder, registry):
    protocol = resolve(folder, registry, optimisation={"options": {"num_steps": 50}})
    (plan,) = plan_methods(protocol, registry, ["stepper"])
    assert plan.cells[0].filename.startswith("stepper.plain+num_steps=50__photo__paint__32__")


def test_names_that_no_file_can_have_are_refused_before_anything_is_measured(folder, registry):
    protocol = resolve(folder, registry, contents=[{"image": "photo.png", "name": "p" * 200}])
    with pytest.raises(ProtocolError, match="too long for the name of a file: give the protocol's images shorter"):
        plan_methods(protocol, registry, ["tint"])


@pytest.mark.parametrize("name", list_protocols())
def test_protocols_that_ship_are_valid_and_named_as_their_file(name):
    assert load_protocol(find_protocol(name)).name == name


def test_a_size_is_needed_as_a_whole_number(folder):
    with pytest.raises(ProtocolError, match="sizes"):
        load_protocol(write(folder, sizes=[64.5]))


def test_quick_is_what_it_promises():
    quick = load_protocol(find_protocol("quick"))
    assert (len(quick.contents), len(quick.styles), quick.sizes) == (2, 2, [256])
    assert all(ref.image.startswith("builtin:") for ref in [*quick.contents, *quick.styles])
    assert quick.optimisation.options["num_steps"] >= 50
