"""On a real Slurm: a benchmark in shards and a folder of pictures as array tasks, with one task cancelled."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import slurm
from test_bench_shards import PROTOCOL, command, protocol  # noqa: F401

from zoo.bench import shards
from zoo.bench.rows import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(slurm.lacks()), reason=slurm.lacks())]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Mapping[str, str]]:
    # Not below pytest's folder: a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder, slurm.cluster(Path(folder)) as environment:
        yield environment


def test_shards_of_which_one_is_cancelled_go_on_and_make_the_rows_of_one_run(
    cluster, protocol, tmp_path, capsys, monkeypatch  # noqa: F811
):
    pytest.importorskip("submitit")
    monkeypatch.setenv("SLURM_CONF", cluster["SLURM_CONF"])
    monkeypatch.setattr(shards, "_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(shards, "_POLL_SECONDS", 0.1)
    common = ["--methods", "tint", "--protocol", str(protocol), "--device", "cpu", "--threads", "1"]
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


def values(run: Path) -> dict[tuple[str, str | None, str], float | None]:
    """Every value of a run that is not a reading of a clock or of memory."""
    found = read_rows(run / "rows.jsonl")
    return {(row.method, row.content, row.metric): row.value for row in found if row.unit in ("", "GFLOP")}


def queue(environment: Mapping[str, str], *options: str) -> list[str]:
    """Ids of the tasks that the cluster has not ended yet."""
    command = ["squeue", "--noheader", "--array", "--format=%i", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
