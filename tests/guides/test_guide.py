"""docs/add-a-method.md works as written: its code, installed as a plugin, is listed, shown, used and checked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import yaml

from zoo.registry import MethodEntry

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)


METHOD, CHECK = _blocks("python")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks to Python like the guide's package after pip has installed it."""
    folder = tmp_path_factory.mktemp("site")
    named = re.search(r"<!-- file: (\S+) -->\n```python", GUIDE)
    assert named is not None
    (folder / named[1]).write_text(METHOD, encoding="utf-8")
    (toml,) = _blocks("toml")
    points = re.fullmatch(r'\[project\.entry-points\."([\w.]+)"\]\n((?:\w+ = "[\w.:]+"\n)+)', toml)
    assert points is not None
    metadata = folder / "zoo_reinhard-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-reinhard\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(f"[{points[1]}]\n{points[2]}".replace('"', ""), encoding="utf-8")
    return folder


def _run(folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(ROOT), str(folder)])
    run = forked.run(
        [sys.executable, "-W", "error", *arguments],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_plugin_is_listed_without_being_imported(installed: Path) -> None:
    rows = json.loads(_run(installed, "-m", "zoo", "list", "reinhard.*", "--json"))
    assert [(r["name"], r["default"], r["plugin"]) for r in rows] == [
        ("reinhard.paper", True, True),
        ("reinhard.rgb", False, True),
    ]


def test_the_plugin_keeps_the_contract(installed: Path) -> None:
    results = json.loads(_run(installed, "-m", "zoo", "check", "reinhard", "--json"))["reinhard"]
    assert {r["name"] for r in results if r["status"] == "failed"} == set()
    passed = {r["name"] for r in results if r["status"] == "passed"}
    assert {"sizes", "batch", "mix-order", "strength-half", "config-source", "random-state"} <= passed


def test_the_python_lines_work_without_an_entry(installed: Path) -> None:
    _run(installed, "-c", CHECK)


def test_the_plugin_reproduces_the_styles_statistics(installed: Path) -> None:
    code = """
import torch, zoo
for name in ("reinhard", "reinhard.rgb"):
    model = zoo.load(name, device="cpu")
    generator = torch.Generator().manual_seed(0)
    # Far enough from black and white that nothing is clamped.
    content, style = (0.3 + 0.3 * torch.rand(1, 3, 24, 24, generator=generator) * s for s in (1.0, 0.5))
    result = model(content, style)
    for statistic in (torch.mean, torch.std):
        wanted = statistic(model._to_space(style), dim=(2, 3))
        torch.testing.assert_close(statistic(model._to_space(result), dim=(2, 3)), wanted, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(model(content, style, strength=0.0), content, atol=1e-5, rtol=0)
"""
    _run(installed, "-c", code)


def test_the_entry_for_the_registry_is_the_plugins(installed: Path) -> None:
    (block,) = _blocks("yaml")
    written = MethodEntry.model_validate(yaml.safe_load(block)["methods"]["reinhard"])
    code = "import zoo; print(zoo.load_registry().methods['reinhard'].model_dump_json(by_alias=True))"
    plugin = MethodEntry.model_validate_json(_run(installed, "-c", code))
    assert written.model_dump(exclude={"implementation"}) == plugin.model_dump(exclude={"implementation"})
    assert written.implementation == "zoo.methods.reinhard:Reinhard"


def test_the_code_is_clean(tmp_path: Path) -> None:
    pytest.importorskip("ruff", reason="ruff is a developer's tool and not needed to run the tests")
    path = tmp_path / "zoo_reinhard.py"
    path.write_text(METHOD, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(path)], check=True
    )
