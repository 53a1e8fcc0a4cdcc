"""docs/add-a-trained-method.md as a stranger follows it: three places in a copy of the package, no more."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tint_net import write_photos

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "add-a-trained-method.md").read_text(encoding="utf-8")
# All in one process, whose registry is read anew once the three places are written.
STRANGER = """
import hashlib, json, pathlib, shutil, sys
import zoo
from zoo.cli import main
from zoo.references import references
from zoo.registry import load_registry

def run(*words):
    try:
        main(words)
    except SystemExit as stop:
        assert stop.code == 0, (words, stop.code)

photographs, entry, paper = sys.argv[1:]
package = pathlib.Path(zoo.__file__).parent
assert package.parent == pathlib.Path.cwd()
small = ["--content-dir", photographs, "--steps", "40", "--crop", "32", "--device", "cpu", "-q"]
run("train", "zoo.methods.grade:GradeTask", "--style", "builtin:swirls", "--out", "run", *small)
weights = str(shutil.copy("run/model.safetensors", package / "checkpoints/grade.safetensors"))
registry = package / "registry.yaml"
text, sha256 = registry.read_text(), hashlib.sha256(pathlib.Path(weights).read_bytes()).hexdigest()
registry.write_text(text.replace("\\nmethods:\\n", "\\nmethods:\\n" + entry.replace("SHA256", sha256), 1))
with (package / "references.bib").open("a") as bibliography:
    bibliography.write(paper)
load_registry.cache_clear()
references.cache_clear()
run("list", "grade.*")
run("train", "grade", "--style", "builtin:mosaic", "--out", "another", "--init-from", weights, *small)
run("stylize", "-m", "grade", "--style", "swirls", "--content", "builtin:coffee", "--content-size=64", "-o", "out.png")
run("check", "grade", "--only", "s*")
photo, mosaic = zoo.read("builtin:coffee", size="64").pixels, zoo.read("builtin:mosaic", size="64").pixels
made = zoo.read("out.png").pixels
style = zoo.read("builtin:swirls").pixels
assert (made.mean((2, 3)) - style.mean((2, 3))).norm() < 0.5 * (photo.mean((2, 3)) - style.mean((2, 3))).norm()
assert zoo.load("grade", device="cpu").style_names == ("swirls",)
"""


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
    return found


def test_a_stranger_adds_a_trained_method_in_three_places(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "zoo", tmp_path / "zoo", ignore=shutil.ignore_patterns("*.safetensors"))
    for path in (ROOT / "zoo").rglob("*.safetensors"):
        (tmp_path / path.relative_to(ROOT)).symlink_to(path)
    shutil.copy(ROOT / "registry.yaml", tmp_path / "zoo" / "registry.yaml")
    (tmp_path / "zoo/methods/grade.py").write_text(block("python"), encoding="utf-8")
    photographs = write_photos(tmp_path) / "content"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "ZOO_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STRANGER, str(photographs), block("yaml"), "\n" + block("bibtex")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "grade.zoo" in done.stdout
