"""Fixtures shared by the tests, and how they run: one thread per process, the whole suite side by side."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# One thread per process, workers included, set before anything imports torch or numpy: two processes with two spinning
# threads each, on two cores, slow each other tenfold. What runs side by side are tests.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process per processor for the whole suite, and one for the time in which another only waits for a server, a
    browser or a cluster; none beside pytest's own for files or tests that are named."""
    from zoo.bench.environment import usable_cores

    named = any(Path(argument.partition("::")[0]).suffix == ".py" for argument in config.args)
    return 0 if named or config.option.keyword else usable_cores() + 1


def pytest_collection_finish() -> None:
    """What is imported by now lives to the end; the collector need not look through its million objects again."""
    gc.collect()
    gc.freeze()


# In a process that is split from one which did the imports (below), what tests start begins from nothing all the same.
if "forked" in sys.modules and subprocess.Popen is sys.modules["forked"].Popen:
    subprocess.Popen = sys.modules["forked"].Popen.__base__  # type: ignore[misc]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Pytest's own processes too are split from one that has done the imports; it serves them all."""
    import forked

    forked.whole_suite = True
    subprocess.Popen = forked.Popen  # type: ignore[misc]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of published weights and images used for parity; never part of the project."""
    if not SHARED.is_dir():
        message = "reference images and weights are not beside this checkout"
        pytest.skip(message)
    return SHARED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where the reference material is present, a test that skips all the same has not tested what it claims."""
    report: Any = yield
    fixtures: tuple[str, ...] = getattr(item, "fixturenames", ())
    if report.skipped and os.environ.get("CI") and SHARED.is_dir() and "shared" in fixtures:
        report.outcome = "failed"
        report.longrepr = f"skipped although the reference material is here: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands that run in this process may set another number of threads, for themselves."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _a_home_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the zoo keeps on this machine is neither read nor added to: with a network that was exported here once,
    commands take onnxruntime, whose pictures differ from torch's by one level here and there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _forked_workers() -> Iterator[None]:
    """Workers of the benchmark are split from a process that has imported torch; see :mod:`forked`."""
    import forked

    from zoo.bench import supervise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervise, "subprocess", forked)
        yield


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Four tiny pictures as a training set."""
    import numpy as np
    from PIL import Image

    from zoo.training import ImageSet

    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(1)
    for index in range(4):
        small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((72, 64), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return ImageSet.open(folder, store=64, cache_dir=folder / "cache")
