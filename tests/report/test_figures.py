"""Figures: what is drawn equals the table's numbers, fonts are embedded, what cannot be drawn says why."""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_runs import METHODS, PAIRS, read_json, write_run

from zoo.bench.rows import latest, read_rows
from zoo.errors import ConfigError, InputError, ProtocolError, UnknownNameError
from zoo.report.figures import FIGURES, FigureOptions, canvas, draw_figures
from zoo.report.figures.data import (
    Boundary,
    Point,
    Series,
    against_size,
    memory_boundary,
    memory_limit,
    pareto,
    tradeoff_metrics,
)
from zoo.report.figures.draw import _MAKERS, _Source
from zoo.report.figures.grid import GridRow, Region, grid, most_detailed, sample_pairs
from zoo.report.figures.losses import loss_curves, read_curve, running_median
from zoo.report.figures.ranks import Diagram, correlations, critical_differences
from zoo.report.figures.scaling import scaling

GATYS, ADAIN, WCT = METHODS


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sizes, two strengths; the first method runs out of memory at the third size."""
    path = tmp_path_factory.mktemp("swept") / "run"
    return write_run(path, sizes=(32, 64, 128), strengths=(0.5, 1.0), lost=(GATYS, 128))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One size, one strength, no pictures."""
    return write_run(tmp_path_factory.mktemp("plain") / "run", pictures=False)


# Reading computes every interval of the table: once per run is enough.
read = functools.cache(_Source.read)


def drawn(run: Path, name: str, **options: Any) -> Any:
    """The matplotlib figure itself."""
    with canvas.settings():
        return _MAKERS[name](read(run), FigureOptions(**options))[0]


def lines(figure: Any) -> dict[str, list[tuple[float, float]]]:
    """Points by the artist's id, of the artists that stand for something in the rows."""
    return {
        line.get_gid(): list(zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True))
        for axes in figure.axes
        for line in axes.lines
        if line.get_gid()
    }


def mean(run: Path, method: str, metric: str, size: int, strength: float = 1.0) -> float:
    """Recomputed from the rows alone."""
    values = [
        row.value
        for row in latest(read_rows(run / "rows.jsonl"))
        if (row.method, row.metric, row.size, row.strength) == (method, metric, size, strength)
        and row.value is not None
    ]
    assert len(values) == len(PAIRS)
    return sum(values) / len(values)


def test_every_figure_is_written_as_pdf_with_truetype_fonts_and_png_at_300_dots(swept: Path, tmp_path: Path):
    losses = tmp_path / "losses.csv"
    losses.write_text("step,lr,total\n1,0.1,3\n2,0.1,2\n")
    result = draw_figures(swept, tmp_path / "figures", FigureOptions(zoom="auto", losses={"run": losses}))
    assert [*result.written, "convergence"] == list(FIGURES)
    assert list(result.omitted) == ["convergence"]
    assert set(result.said) == set(result.written)
    for name, (pdf, png) in result.written.items():
        assert (pdf.name, png.name) == (f"{name}.pdf", f"{name}.png")
        data = pdf.read_bytes()
        assert b"/Type3" not in data
        assert b"CreationDate" not in data
        with Image.open(png) as picture:
            expected = 174 if name in ("grid", "ranks") else 84
            assert picture.width == pytest.approx(expected / 25.4 * 300, abs=2), name
    assert sorted(path.suffix for path in (tmp_path / "figures").iterdir()) == [".pdf"] * 7 + [".png"] * 7


def test_the_same_rows_give_the_same_bytes(plain: Path, tmp_path: Path):
    first, second = (
        draw_figures(plain, tmp_path / name, FigureOptions(only=("tradeoff",))).written["tradeoff"] for name in "ab"
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_cannot_be_drawn_says_why(plain: Path, tmp_path: Path):
    result = draw_figures(plain, tmp_path / "figures")
    assert set(result.written) == {"tradeoff", "ranks", "correlations"}
    assert "one size, 64 pixels" in result.omitted["speed"]
    assert "one size, 64 pixels" in result.omitted["memory"]
    assert "pictures are not in" in result.omitted["grid"]
    assert "losses.csv" in result.omitted["losses"]
    assert "several steps" in result.omitted["convergence"]


def test_a_folder_without_results_and_unknown_names_are_refused(plain: Path, tmp_path: Path):
    with pytest.raises(ProtocolError, match="holds no results"):
        draw_figures(tmp_path)
    with pytest.raises(UnknownNameError, match="tradeoff"):
        draw_figures(plain, tmp_path, FigureOptions(only=("tradeof",)))
    with pytest.raises(UnknownNameError, match="harbour x waves"):
        draw_figures(plain, tmp_path, FigureOptions(only=("grid",), pairs=[("harbor", "waves")]))
    with pytest.raises(UnknownNameError, match=r"adain\.zoo"):
        draw_figures(plain, tmp_path, FigureOptions(only=("grid",), methods=["adain.zo"]))
    with pytest.raises(UnknownNameError, match="ssim"):
        draw_figures(plain, tmp_path, FigureOptions(only=("tradeoff",), content="sim"))
    with pytest.raises(ConfigError, match="no size 65"):
        draw_figures(plain, tmp_path, FigureOptions(only=("tradeoff",), size=65))
    with pytest.raises(ConfigError, match="10 mm"):
        draw_figures(plain, tmp_path, FigureOptions(only=("ranks",), width=10))


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_speed_is_the_means_of_the_rows_and_the_legend_holds_the_exponent(swept: Path):
    figure = drawn(swept, "speed")
    found = lines(figure)
    assert set(found) == set(METHODS)
    for method in (ADAIN, WCT):
        assert found[method] == [
            (size, pytest.approx(mean(swept, method, "seconds.stylize", size))) for size in (32, 64, 128)
        ]
    assert [x for x, _ in found[GATYS]] == [32, 64]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("adain" in text and "1.00" in text for text in texts)


def test_memory_shows_the_limit_and_where_a_method_ran_out(swept: Path):
    figure = drawn(swept, "memory")
    found = lines(figure)
    assert {y for _, y in found["limit"]} == {0.8 * 8000}
    # Memory of the fake method grows with the pixels: four times what it takes at half the side, far below the limit.
    assert found[f"{GATYS} out of memory"] == [found[GATYS][-1], (128, 6400)]
    assert memory_boundary(read_rows(swept / "rows.jsonl"), "memory.resident") == [
        Boundary(GATYS, 128, pytest.approx(4 * 0.006 * 64**2))
    ]


def test_a_need_above_the_limit_is_drawn_where_it_is():
    looks, names = canvas.looks(["m"]), {"m": "m"}
    with canvas.settings():
        figure = scaling(
            [Series("m", (64.0, 128.0), (10.0, 40.0))],
            looks,
            names,
            metric="memory.resident",
            label="MiB",
            width_mm=84,
            boundaries=[Boundary("m", 256, 160.0)],
            limit=100.0,
        )
    assert lines(figure)["m out of memory"] == [(128, 40), (256, 160)]


def test_a_gpu_has_no_limit_line(swept: Path):
    run = read_json(swept / "run.json")
    assert memory_limit(run) == pytest.approx(6400)
    run["conditions"]["device"] = "cuda:0"
    assert memory_limit(run) is None


def test_kept_sizes_and_baselines_are_not_drawn_against_the_size(swept: Path):
    table = read(swept).table
    table = dataclasses.replace(table, lines=[dataclasses.replace(line, size=0) for line in table.lines])
    assert against_size(table, "seconds.stylize") == []


def test_tradeoff_is_the_means_with_the_sweep_in_order_of_strength(swept: Path):
    found = lines(drawn(swept, "tradeoff", content="ssim", style="gram_loss", size=64))
    for method in METHODS:
        expected = [
            (mean(swept, method, "ssim", 64, strength), mean(swept, method, "gram_loss", 64, strength))
            for strength in (0.5, 1.0)
        ]
        assert found[method] == [(pytest.approx(x), pytest.approx(y)) for x, y in expected]
    assert found["style-copy"] == [
        (
            pytest.approx(mean(swept, "style-copy", "ssim", 64)),
            pytest.approx(mean(swept, "style-copy", "gram_loss", 64)),
        )
    ]


def test_tradeoff_is_drawn_of_metrics_that_have_values(swept: Path):
    source = read(swept)
    content, style = tradeoff_metrics(source.table, source.registry)
    lost = [
        dataclasses.replace(line, values={**line.values, content: None if not line.baseline else 1.0})
        for line in source.table.lines
    ]
    other, same = tradeoff_metrics(dataclasses.replace(source.table, lines=lost), source.registry)
    assert content is not None
    assert other != content
    assert same == style


def test_pareto_keeps_what_nothing_beats():
    a, b, c, d = Point("a", 1, 0.1, 5.0), Point("b", 1, 0.5, 3.0), Point("c", 1, 0.4, 3.0), Point("d", 1, 0.9, 1.0)
    baseline = Point("copy", 1, 1.0, 9.0, baseline=True)
    assert pareto([a, b, c, d, baseline], x_higher=True, y_higher=True) == [a, b, d]
    assert pareto([a, b, c, d, baseline], x_higher=False, y_higher=True) == [a]
    assert pareto([b, dataclasses.replace(b, label="e")], x_higher=True, y_higher=True)[1].label == "e"


def test_a_copy_without_loss_is_named_where_a_logarithmic_axis_cannot_show_it():
    from zoo.report.figures.tradeoff import tradeoff

    points = [Point("m", 1, 1.0, 1.0), Point("n", 1, 100.0, 2.0), Point("content-copy", 1, 0.0, 3.0, baseline=True)]
    with canvas.settings():
        figure = tradeoff(
            points,
            canvas.looks(["m", "n"]),
            {"m": "m", "n": "n"},
            x_label="content loss",
            y_label="style",
            x_higher=False,
            y_higher=True,
            width_mm=84,
        )
    assert figure.axes[0].get_xscale() == "log"
    assert "content-copy" not in lines(figure)
    assert any("content-copy (sanity): 0, 3, off" in text.get_text() for text in figure.legends[0].get_texts())


def test_ranks_are_those_of_the_statistics(swept: Path):
    figure = drawn(swept, "ranks", size=64)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    # In ssim, cf and lp the later method is better by construction, in the gram loss too: lower is better.
    assert texts.count("wct  1.00") + texts.count("1.00  wct") == 4
    assert texts.count("gatys, num_steps=50  3.00") + texts.count("3.00  gatys, num_steps=50") == 4


def test_a_diagram_places_methods_at_their_ranks_and_joins_groups():
    diagram = Diagram("x", ("a", "b", "c"), (1.0, 2.5, 3.0), 0.75, ((1, 2),))
    with canvas.settings():
        found = lines(critical_differences([diagram], width_mm=84, columns=1))
    place = {name: found[name][0][0] for name in "abc"}
    assert (place["b"] - place["a"]) / (place["c"] - place["a"]) == pytest.approx(0.75)
    (left, _), (right, _) = found["group"]
    assert place["a"] < left < place["b"] < place["c"] < right
    with pytest.raises(InputError):
        Diagram("x", ("a",), (1.0,), 1.0, ())


def test_ranks_and_correlations_are_the_ones_of_the_tables(swept: Path):
    from zoo.registry import load_registry
    from zoo.report.summary import Run

    summary = Run(read_rows(swept / "rows.jsonl"), read_json(swept / "run.json"), load_registry())
    drawn_values = np.asarray(drawn(swept, "correlations", size=32).axes[0].images[0].get_array())
    expected = [one.result.spearman for one in summary.agreements() if one.size == 32]
    np.testing.assert_allclose(drawn_values[np.triu_indices(4, 1)], expected)
    critical = [
        one.ranking.critical for one in summary.ranks() if (one.size, one.strength, one.family) == (32, 1.0, "")
    ]
    texts = [text.get_text() for axes in drawn(swept, "ranks", size=32).axes for text in axes.texts]
    for value in critical:
        assert any(f"critical difference {value:.2f}" in text for text in texts)


def test_correlations_are_drawn_as_they_are_given(plain: Path):
    with canvas.settings():
        figure = correlations(["a", "b"], [[1.0, -0.25], [-0.25, math.nan]], title="t", width_mm=84)
    assert figure.axes[0].images[0].get_array()[0, 1] == -0.25
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "-0.25", "-0.25"]
    figure = drawn(plain, "correlations")
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert names == ["SSIM", "CF", "gram loss", "LP"]
    values = np.asarray(figure.axes[0].images[0].get_array())
    assert values[0, 0] == pytest.approx(1)
    # A lower gram loss is better: both metrics prefer the same pictures.
    assert values[0, 2] > 0
    with pytest.raises(InputError):
        correlations(["a", "b"], [[1.0]], title="t", width_mm=84)


# -- losses ----------------------------------------------------------------------------------------------------------


def test_losses_of_training_and_of_an_optimisation_method_are_drawn_as_written(tmp_path: Path):
    trained, fitted = tmp_path / "losses.csv", tmp_path / "gatys.csv"
    trained.write_text(
        "step,lr,total,content,grad_norm\n" + "".join(f"{i},0.1,{9 + (i % 7)},{i},1\n" for i in range(1, 301))
    )
    fitted.write_text("image,step,total\n0,1,8.5\n0,2,4.25\n1,1,7\n")
    curves = [read_curve(trained, "trained"), read_curve(fitted, "gatys")]
    with canvas.settings():
        figure = loss_curves(curves, width_mm=84)
    found = lines(figure)
    assert found["gatys total"] == [(1, 8.5), (2, 4.25)]
    assert found["trained total"][:2] == [(1, 10), (2, 11)]
    assert found["trained content"][-1] == (300, 300)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["trained", "gatys"]


def test_the_running_median_takes_whole_windows():
    assert running_median([1, 2, 3, 4, 5, 6, 7], [5, 1, 9, 2, 2, 8, 0], 3) == ([3, 6], [5, 2])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a,b\n1,2\n", "column 'step'"),
        ("step,lr\n1,2\n", "no column beside"),
        ("step,total\n1,x\n", "not a table"),
        ("step,total\ninf,1\n", "not a table"),
    ],
)
def test_a_file_that_holds_no_losses_is_refused(tmp_path: Path, text: str, match: str):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=match):
        read_curve(path, "x")
    with pytest.raises(InputError, match="cannot be read"):
        read_curve(tmp_path / "absent.csv", "x")


# -- the grid --------------------------------------------------------------------------------------------------------


def test_the_grid_has_the_width_asked_for_and_the_pictures_of_the_run(swept: Path):
    figure = drawn(swept, "grid", width=120.0, pairs=[PAIRS[1]], methods=[WCT, ADAIN], size=64)
    assert figure.get_figwidth() * 25.4 == pytest.approx(120)
    assert [axes.get_gid() for axes in figure.axes] == [
        f"harbour × tiles / {name}" for name in ("content", "style", "wct", "adain")
    ]
    for axes, name in zip(figure.axes, ("inputs/content__harbour__64", "inputs/style__tiles__64"), strict=False):
        with Image.open(swept / "outputs" / f"{name}.png") as picture:
            expected = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
        np.testing.assert_allclose(axes.images[0].get_array(), expected, atol=1e-6)
    shown = figure.axes[2].get_position()
    assert shown.width * 120 / (shown.height * figure.get_figheight() * 25.4) == pytest.approx(4 / 3, abs=0.01)


def test_the_zoom_is_framed_and_enlarged_everywhere_but_in_the_style(swept: Path):
    figure = drawn(swept, "grid", pairs=[PAIRS[0]], methods=[ADAIN], zoom="0.5,0.5,0.25,0.25", size=64)
    content, style, method = figure.axes
    assert len(style.images) == 1
    for axes in (content, method):
        whole, crop = (np.asarray(image.get_array()) for image in axes.images)
        np.testing.assert_array_equal(crop, whole[24:36, 32:48])
        # The region lies at the lower right: its enlargement stands at the upper left.
        left, _, _, top = axes.images[1].get_extent()
        assert (left, top) == (0, 0)


def test_the_automatic_zoom_finds_the_detail():
    content = np.full((60, 90, 3), 0.5, dtype=np.float32)
    content[32:48:2, 62:78:2] = 1.0
    region = most_detailed(content)
    rows, columns = region.pixels(60, 90)
    assert rows.stop - rows.start == columns.stop - columns.start == 20
    assert rows.start <= 32
    assert rows.stop >= 48
    assert columns.start <= 62
    assert columns.stop >= 78
    assert most_detailed(np.zeros((3, 3, 3), dtype=np.float32)).top == 0


@pytest.mark.parametrize("text", ["0.1,0.2,0.3", "a,b,c,d", "0.9,0,0.2,0.2", "0,0,0,0.1", "-0.1,0,0.5,0.5"])
def test_a_zoom_outside_the_picture_is_refused(text: str):
    with pytest.raises(InputError, match="LEFT,TOP,WIDTH,HEIGHT"):
        Region.parse(text)


def test_a_missing_picture_is_said_and_every_row_needs_all_columns():
    picture = np.zeros((4, 4, 3), dtype=np.float32)
    with canvas.settings():
        figure = grid([GridRow("a", [picture, None])], ["content", "style"], width_mm=84)
    assert [text.get_text() for text in figure.axes[1].texts] == ["missing"]
    with pytest.raises(InputError):
        grid([GridRow("a", [picture])], ["content", "style"], width_mm=84)


def test_a_sample_of_pairs_shows_many_contents_and_styles_and_is_seeded():
    pairs = [(content, style) for content in "abcd" for style in "wxyz"]
    sample = sample_pairs(pairs, 4, seed=3)
    assert sample == sample_pairs(pairs, 4, seed=3)
    assert {content for content, _ in sample} == set("abcd")
    assert {style for _, style in sample} == set("wxyz")
    assert any(sample_pairs(pairs, 4, seed=seed) != sample for seed in range(9))
    assert sample_pairs(pairs, 99, seed=0) == pairs


# -- looks -----------------------------------------------------------------------------------------------------------


def test_methods_differ_without_colour_and_names_are_short_where_they_can_be():
    found = canvas.looks([f"m{i}" for i in range(10)])
    assert len({look.marker for look in found.values()}) == 10
    assert len({look.color for look in list(found.values())[:7]}) == 7
    labels = ["gatys.zoo[num_steps=50]", "adain.zoo", "wct.zoo", "wct.paper", "mine v1.2"]
    assert list(canvas.short_names(labels).values()) == [
        "gatys, num_steps=50",
        "adain",
        "wct.zoo",
        "wct.paper",
        "mine v1.2",
    ]


def test_the_speed_figure_agrees_with_table_csv(swept: Path, tmp_path: Path):
    from zoo.report.present import to_csv
    from zoo.report.tables import read_table

    reader = csv.DictReader(to_csv(read_table(swept)).splitlines())
    expected = {
        (row["method"], float(row["size"])): float(row["seconds.stylize"])
        for row in reader
        if row["seconds.stylize"] and row["strength"] == "1.0"
    }
    found = {(method, x): y for method, points in lines(drawn(swept, "speed")).items() for x, y in points}
    assert found == expected
