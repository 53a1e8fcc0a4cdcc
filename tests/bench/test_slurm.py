"""On a real Slurm: a benchmark in shards and a folder of pictures as array tasks, with one task cancelled."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import slurm
from PIL import Image
from test_bench_shards import command
from test_bench_shards import protocol as parts  # noqa: F401

from zoo.bench import from_cluster
from zoo.bench.rows import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(slurm.lacks()), reason=slurm.lacks())]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Mapping[str, str]]:
    # Not below pytest's folder: a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder, slurm.cluster(Path(folder)) as environment:
        yield environment


def test_shards_of_which_one_is_cancelled_go_on_and_make_the_rows_of_one_run(
    cluster,
    parts,  # noqa: F811
    tmp_path,
    capsys,
    monkeypatch,
):
    pytest.importorskip("submitit")
    monkeypatch.setenv("SLURM_CONF", cluster["SLURM_CONF"])
    monkeypatch.setattr(from_cluster, "_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(from_cluster, "_POLL_SECONDS", 0.1)
    common = ["--methods", "tint", "--protocol", str(parts), "--device", "cpu", "--threads", "1"]
    sharded = ["--out", str(tmp_path / "parts"), "--shards", "2", "--cluster", "slurm"]

    def cancel() -> None:
        slurm.until(lambda: queue(cluster, "--states=RUNNING"))
        subprocess.run(["scancel", queue(cluster, "--states=RUNNING")[0]], env=cluster, check=True)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    assert command(*common, *sharded) == 2
    canceller.join()
    assert "A task failed (the cluster ended it, state CANCELLED)" in " ".join(capsys.readouterr().err.split())
    slurm.until(lambda: not queue(cluster))
    assert command(*common, *sharded) == 0
    assert command(*common, "--out", str(tmp_path / "whole")) == 0
    parts, whole = (values(tmp_path / name) for name in ("parts", "whole"))
    assert parts == whole
    assert {metric for _, _, metric in whole} >= {"ssim", "parameters"}
    assert len(json.loads((tmp_path / "parts" / "run.json").read_text())["runs"]) == 2


def test_a_folder_of_photographs_by_array_tasks_as_the_documentation_says(cluster, tmp_path):
    page = Path(__file__).parents[2] / "docs" / "clusters.md"
    (script,) = re.findall(r"```bash\n(#!.*?zoo stylize.*?)```", page.read_text(), re.DOTALL)
    (tmp_path / "stylize.sh").write_text(script)
    (tmp_path / "photographs").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{number}.png")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    environment, folder = {**cluster, "PATH": path, "PYTHONPATH": str(page.parents[1])}, tmp_path / "stylized"

    def submit() -> None:
        subprocess.run(["sbatch", "--array=1-2", "stylize.sh"], cwd=tmp_path, env=environment, check=True)

    submit()
    slurm.until(lambda: len(queue(cluster, "--states=RUNNING")) == 2)
    subprocess.run(["scancel", queue(cluster, "--states=RUNNING")[1]], env=cluster, check=True)
    slurm.until(lambda: not queue(cluster), 120)
    first = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert 2 <= len(first) < 4
    submit()
    slurm.until(lambda: not queue(cluster), 120)
    assert sorted(path.name for path in folder.iterdir()) == [f"{n}__mosaic__johnson.png" for n in range(4)]
    assert {path: path.stat().st_mtime_ns for path in first} == first


def values(run: Path) -> dict[tuple[str, str | None, str], float | None]:
    """Every value of a run that is not a reading of a clock or of memory."""
    found = read_rows(run / "rows.jsonl")
    return {(row.method, row.content, row.metric): row.value for row in found if row.unit in ("", "GFLOP")}


def queue(environment: Mapping[str, str], *options: str) -> list[str]:
    """Ids of the tasks that the cluster has not ended yet."""
    command = ["squeue", "--noheader", "--array", "--format=%i", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
