"""A protocol of steps: pictures, losses and metrics at several steps of one run."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zoo import images
from zoo.bench.folder import Folder, write_rows
from zoo.bench.from_cluster import run_sharded
from zoo.bench.plan import Plan, last_steps, plan_methods, split_step
from zoo.bench.protocol import load_protocol, resolve_protocol
from zoo.bench.rows import read_rows
from zoo.bench.run import run
from zoo.bench.workers.steps import _Session
from zoo.errors import ZooError
from zoo.loading import load
from zoo.registry import load_registry
from zoo.report.figures import FigureOptions, draw_figures
from zoo.report.files import write_report
from zoo.report.page import write_page
from zoo.report.summary import Run
from zoo.report.tables import read_run

TINY = """
schema: 1
name: tiny
contents: [builtin:astronaut, builtin:coffee]
styles: [builtin:mosaic]
sizes: [48]
baselines: [content-copy]
metrics: [ssim, gram_loss]
steps: [1, 4, 9]
optimisation: {options: {num_steps: 8}}
"""
GATYS = "gatys.zoo[num_steps=8,step={}]"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    (folder / "tiny.yaml").write_text(TINY)
    assert run(["gatys", "adain"], folder / "tiny.yaml", folder / "run", threads=1).ok
    return folder / "run"


def test_steps_are_of_one_run(measured: Path) -> None:
    rows = {(row.method, row.content, row.metric): row for row in read_rows(measured / "rows.jsonl")}
    content, style = (
        images.read(measured / "outputs" / "inputs" / f"{name}__48.png").pixels
        for name in ("content__astronaut", "style__mosaic")
    )
    model = load("gatys", num_steps=8, device="cpu")
    losses = model.stylize(content, model.encode_style(style)).losses
    for step in (1, 4):
        row = rows[GATYS.format(step), "astronaut", "loss.total"]
        assert row.value == pytest.approx(losses[step - 1]["total"], rel=1e-3)
    first, later = (rows[GATYS.format(step), "astronaut", "seconds.stylize"] for step in (1, 4))
    assert first.value is not None
    assert later.value is not None
    assert 0 < first.value < later.value
    assert first.picture != later.picture
    gram = [rows[GATYS.format(step), "coffee", "gram_loss"].value or 0 for step in (1, 4)]
    assert 0 < gram[1] < gram[0]


def test_all_steps_of_a_run_come_one_after_another(tmp_path: Path) -> None:
    """Two seeds in turns would make every run once more for every step."""
    path, registry = tmp_path / "seeds.yaml", load_registry()
    path.write_text(TINY + "seeds: [0, 1]\nstrengths: [0.5, 1.0]\n")
    protocol = resolve_protocol(load_protocol(path), tmp_path, registry)
    plan = Plan(protocol, registry, plan_methods(protocol, registry, ["gatys"]))
    (group,) = plan.grouped(lambda method, cell: True)
    runs = [(cell.content, cell.seed, cell.strength) for cell in group]
    assert len(runs) == 2 * 2 * 2 * 3
    assert [run for run, _ in itertools.groupby(runs)] == list(dict.fromkeys(runs))


def test_a_step_that_no_run_reaches_is_skipped(measured: Path) -> None:
    late = [row for row in read_rows(measured / "rows.jsonl") if row.method == GATYS.format(9)]
    assert {(row.status, row.reason) for row in late} == {("skipped", "The run ended before step 9.")}


def test_a_run_of_steps_is_warmed_up_as_the_protocol_says(tmp_path: Path) -> None:
    """What the first call of a process costs alone is no part of the seconds until a step."""
    taken: list[int] = []

    class Model:
        device = torch.device("cpu")
        traits = SimpleNamespace(iterative=True)

        def encode_style(self, *_: object) -> None: ...

        def stylize(self, content: torch.Tensor, *_: object, progress: Any, **__: object) -> None:
            for step in range(1, 5):
                taken.append(step)
                if progress(step, 4, {"total": 1.0}, lambda: content):
                    return

    for name in ("content", "style"):
        images.write(tmp_path / f"{name}.png", torch.zeros(1, 3, 8, 8))
    cell = {name: str(tmp_path / f"{name}.png") for name in ("content", "style", "output")}
    cell |= {"seed": 0, "strength": 1.0, "step": 3}
    job = {"timing": {"warmup": 2}, "cells": [cell]}
    numbers = _Session(job, Model(), 0).measure(cell)  # type: ignore[arg-type]
    assert taken == [1, 1, 1, 2, 3]
    assert {one["metric"] for one in numbers} == {"memory.resident", "loss.total", "seconds.stylize"}


def test_methods_of_one_pass_have_one_line(measured: Path) -> None:
    assert {row.method for row in read_rows(measured / "rows.jsonl") if row.method.startswith("adain")} == {"adain.zoo"}


def test_a_run_of_steps_goes_on_where_a_picture_is_lost(measured: Path) -> None:
    again = measured.parent / "tiny.yaml"
    assert run(["gatys", "adain"], again, measured, threads=1).written == 0
    rows = read_rows(measured / "rows.jsonl")
    lines = [row.to_json() for row in rows if (row.method, row.content) != (GATYS.format(4), "coffee")]
    (measured / "rows.jsonl").write_text("\n".join(lines) + "\n")
    run(["gatys"], again, measured, threads=1)
    assert {row.key for row in rows} <= {row.key for row in read_rows(measured / "rows.jsonl")}


def test_ranks_are_of_the_last_step(measured: Path) -> None:
    found = Run(read_rows(measured / "rows.jsonl"), read_run(Folder(measured)))
    assert {row.method for row in found.rows} == {GATYS.format(4), "adain.zoo"}


def test_figures_and_page_show_the_way(measured: Path) -> None:
    write_report(measured)
    options = FigureOptions(only=["convergence"], pairs=[("coffee", "mosaic")])
    assert list(draw_figures(measured, options=options).written) == ["convergence", "convergence-coffee-mosaic"]
    text = write_page(measured).read_text()
    section = text[text.index('<section id="convergence"') : text.index('<section id="conditions"')]
    # Gatys, and AdaIN for what it has of ssim, style loss; the own loss is Gatys' alone: three groups of charts.
    assert len(re.findall(r'<path d="M[\d. L]+h0"', section)) == 3 * 5
    assert re.search("All pairs.*Astronaut in mosaic.*Coffee in mosaic", section, re.DOTALL)


def test_what_was_lost_leaves_no_figure_and_no_chart(measured: Path, tmp_path: Path) -> None:
    rows = read_rows(measured / "rows.jsonl")
    lost = [
        dataclasses.replace(row, value=None, status="failed", reason="no luck", cause="crash")
        for row in rows
        if row.metric == "seconds.stylize"
    ]
    for name, gone, wanted, groups in (
        ("pair", {"coffee"}, ["convergence", "convergence-astronaut-mosaic"], 2),
        ("all", {"coffee", "astronaut"}, [], 0),
    ):
        kept = [row for row in rows if row.content not in gone or row.method == "content-copy"]
        folder = Folder(tmp_path / name)
        folder.path.mkdir()
        shutil.copy(measured / "run.json", folder.run)
        write_rows(folder.rows, [*kept, *(row for row in lost if row.content in gone)])
        drawn = draw_figures(folder.path, options=FigureOptions(only=["convergence"]))
        assert list(drawn.written) == wanted
        assert bool(drawn.omitted) != bool(wanted)
        assert write_page(folder.path).read_text().count('against seconds" viewBox') == 3 * groups


def test_steps_are_told_from_options() -> None:
    assert split_step("gatys.zoo[num_steps=8,step=4]") == ("gatys.zoo[num_steps=8]", 4)
    assert split_step("gatys.zoo[step=4,tv_weight=1.0]") == ("gatys.zoo[tv_weight=1.0]", 4)
    assert split_step("gatys.zoo[step=4]") == ("gatys.zoo", 4)
    assert split_step("gatys.zoo[num_steps=8]") == ("gatys.zoo[num_steps=8]", None)
    assert last_steps(["a[step=2]", "b", "a[step=10]", "b"]) == ["a[step=10]", "b"]


def test_what_belongs_to_single_pictures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(TINY)
    for act in (run, partial(run_sharded, count=2, cluster="local")):
        with pytest.raises(ZooError, match="--largest is of single pictures"):
            act(["gatys"], path, tmp_path / "run", find_largest=True)
    path.write_text(TINY + "timing: {batches: [2]}\n")
    with pytest.raises(ZooError, match="timing: count and batches are of single pictures"):
        run(["gatys"], path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("steps", ["[4, 2]", "[2, 2]", "[0]"])
def test_bad_steps_are_refused(tmp_path: Path, steps: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(TINY.replace("[1, 4, 9]", steps))
    with pytest.raises(ZooError, match="steps"):
        run(["gatys"], path, tmp_path / "run")
