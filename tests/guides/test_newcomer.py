"""docs/your-method-in-the-table.md works as written: a plugin, and a folder of pictures, end up in the tables. So does
the metric of docs/add-a-metric.md."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tomllib
from pathlib import Path

import forked
import pytest
import yaml

from zoo.registry import MetricEntry

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "your-method-in-the-table.md").read_text(encoding="utf-8")
METRIC_GUIDE = (ROOT / "docs" / "add-a-metric.md").read_text(encoding="utf-8")
# The guide's protocol, with its images, but small enough for a test.
TINY = """\
schema: 1
name: quick
contents: [builtin:astronaut, builtin:coffee]
styles: [builtin:swirls, builtin:woodblock]
sizes: [64]
metrics: [ssim, gram_loss]
baselines: [content-copy]
timing: {warmup: 0, repeats: 1, budget: 0}
optimisation: {options: {num_steps: 1}}
"""


def _blocks(language: str, guide: str = GUIDE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", guide, flags=re.MULTILINE | re.DOTALL)


PLUGIN, PICTURES = _blocks("python")
PLUGIN_COMMANDS, EXPORT_COMMANDS, PICTURE_COMMANDS = (
    [shlex.split(line) for line in block.splitlines()] for block in _blocks("sh")
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the protocol, and in ``site`` the guide's package as pip would have installed it."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "tiny.yaml").write_text(TINY)
    named = re.search(r"<!-- file: (\S+) -->\n```python", GUIDE)
    assert named is not None
    metadata = folder / "site" / "zoo_quantiles-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata.parent / named[1]).write_text(PLUGIN, encoding="utf-8")
    (toml,) = _blocks("toml")
    project = tomllib.loads(toml)["project"]
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [f"{key} = {value}" for key, value in project["entry-points"]["zoo.methods"].items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[zoo.methods]", *lines, ""]))
    return folder


def _run(place: Path, *command: str) -> str:
    paths = os.pathsep.join([str(ROOT), str(place / "site")])
    done = forked.run(
        [sys.executable, "-W", "error", *command],
        cwd=place,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _zoo(place: Path, command: list[str]) -> str:
    """A command of the guide, on the small protocol."""
    assert command[0] == "zoo"
    arguments = ["tiny.yaml" if word == "quick" else word for word in command[1:]]
    return _run(place, "-m", "zoo", *arguments)


def test_a_plugin_is_in_the_table_of_all_methods_and_in_latex(place: Path) -> None:
    install, _, bench, report = PLUGIN_COMMANDS
    assert install == ["pip", "install", "-e", "."]
    assert bench[:4] == ["zoo", "bench", "--methods", "all"]
    matched = _run(place, "-c", "import zoo; print(*zoo.load_registry().match(['all']))").split()
    assert {"adain", "gatys", "quantiles"} <= set(matched)
    # One method beside it stands for all: the others take minutes.
    assert "quantiles.plain" in _zoo(place, [*bench[:3], "adain,quantiles", *bench[4:]])
    tables = place / "results" / "mine" / "tables"
    _zoo(place, report)
    cost, quality = [
        line for line in (tables / "table.tex").read_text().splitlines() if line.startswith("quantiles.plain")
    ]
    # Seconds and memory, and scores: numbers and no dashes.
    assert len(re.findall(r"(?<= )\d+\.?\d*(?= )", cost)) >= 2, cost
    assert "--" not in cost
    assert len(re.findall(r"\d+\.\d+", quality)) >= 2, quality
    assert "you2026quantiles" in (tables / "references.bib").read_text()
    assert "adain.zoo" in (tables / "table.tex").read_text()


def test_the_plugin_keeps_the_whole_contract(place: Path) -> None:
    _zoo(place, PLUGIN_COMMANDS[1])


def test_a_folder_of_pictures_is_in_the_table(place: Path) -> None:
    (export,), (bench,) = EXPORT_COMMANDS, PICTURE_COMMANDS
    assert "4 pictures wanted" in _zoo(place, export)
    _run(place, "-c", PICTURES)
    # A folder of its own, so that the test stands alone.
    out = _zoo(place, [*bench[:-1], "results/pictures"])
    (row,) = [line for line in out.splitlines() if re.match(r"\W*mine\b", line)]
    assert re.search(r"\d\.\d", row), row
    assert "skipped" not in (place / "results" / "pictures" / "rows.jsonl").read_text()


def test_the_metric_of_the_guide_runs_and_its_entry_is_one(place: Path) -> None:
    definition, use = _blocks("python", METRIC_GUIDE)
    (entry,) = _blocks("yaml", METRIC_GUIDE)
    ((name, fields),) = yaml.safe_load(entry)["metrics"].items()
    assert f"class {MetricEntry.model_validate(fields).implementation.partition(':')[2]}(Metric)" in definition
    assert f"<!-- file: {name}.py -->" in METRIC_GUIDE
    (place / f"{name}.py").write_text(definition + use)
    _run(place, f"{name}.py")
