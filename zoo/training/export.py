"""The end of a run: weights as fp16 safetensors that know where they come from, a model card, and a plot of the losses.

The card is written from what the safetensors file says of itself, so the two cannot disagree.
"""

from __future__ import annotations

import csv
import json
import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from zoo import files, provenance
from zoo.device import processor
from zoo.errors import NumericalError, WeightsError
from zoo.training.data import ImageSet, short_path
from zoo.training.task import TrainingTask
from zoo.words import counted, visible


def describe_set(images: ImageSet) -> dict[str, Any]:
    """Return image counts per folder, for run.json and the card; paths are cut to their last two parts,
    never more."""
    folders = Counter(short_path(Path(source).parent) for source in images.sources)
    return {
        "images": len(images),
        "folders": dict(sorted(folders.items())),
        "digest": images.digest,
        "skipped": [Path(name).name for name, _ in images.skipped],
    }


def describe_machine(device: torch.device, precision: str, processes: int) -> dict[str, Any]:
    """Hardware and versions of a run."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": device.type,
        "name": name,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def export(task: TrainingTask, folder: Path) -> None:
    """Write model.safetensors, card.md and losses.png of the run in ``folder`` from ``task.network`` as it stands.

    Needs the run.json that the trainer writes. Raises NumericalError where a weight does not fit fp16.
    """
    record = _texts(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    del record["options"], record["init_from"]  # with the paths of this machine
    state = {}
    for name, value in task.network.state_dict().items():
        half = value.detach().to("cpu", torch.float16) if value.is_floating_point() else value.detach().cpu()
        if not torch.isfinite(half).all():
            raise NumericalError(
                f"Weight {name!r} is not finite in fp16: start a new run with a lower learning rate (--lr)."
            )
        state[name] = half.contiguous()
    path = folder / "model.safetensors"
    files.write(path, save(state, provenance.written(record)))
    # Where a run was begun anew, a later one may be of the run before.
    last = f"step_{record['step']:07d}"
    previews = sorted(p for p in (folder / "previews").glob("*.png") if p.stem <= last)
    plotted = plot_losses(folder)
    pictures = [p.relative_to(folder).as_posix() for p in (*previews[-1:], *([plotted] if plotted else []))]
    write_card(path, folder / "card.md", pictures, folder / "evaluation.csv")


def _texts(value: Any) -> Any:
    """A record whose texts can be written: names of files need not be text in any encoding."""
    if isinstance(value, str):
        return visible(value, "\n\t")
    if isinstance(value, dict):
        return {_texts(key): _texts(inner) for key, inner in value.items()}
    return [_texts(inner) for inner in value] if isinstance(value, list) else value


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a checkpoint of ours says of itself; WeightsError if it says nothing or is no safetensors file."""
    facts = provenance.read_metadata(path)
    if "method" not in facts:
        raise WeightsError(f"{path} does not say which method it belongs to: it was not written by the trainer.")
    return facts


def write_card(checkpoint: Path, path: Path, pictures: Sequence[str] = (), evaluation: Path | None = None) -> Path:
    """A model card in Markdown from the checkpoint's own metadata. ``pictures`` are paths relative to the card;
    ``evaluation`` is the run's evaluation.csv, if it has one: how the held-out figures went."""
    count, facts = provenance.read_facts(checkpoint)
    lines = [f"# {facts['method']}: {checkpoint.name}", "", *table_lines(facts_rows(facts, count)), ""]
    lines += ["## Data", "", *data_lines(facts), ""]
    lines += evaluation_lines(evaluation) if evaluation is not None and evaluation.exists() else []
    lines += ["## Options", "", "| option | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts["config"].items()]
    lines += ["", *(f"![{Path(picture).stem}]({picture})\n" for picture in pictures)]
    files.write(path, "\n".join(lines).rstrip() + "\n")
    return path


def facts_rows(facts: Mapping[str, Any], count: int) -> list[tuple[str, str]]:
    """The card's table from a run's record, method and paper first; ``count`` is the number of parameters."""
    machine, config = facts["machine"], facts["config"]
    images = config["batch_size"] * config["accumulate"] * machine["processes"]
    return [
        ("Method", facts["method"]),
        ("Paper", facts["paper"]),
        ("Parameters", f"{count:,} (fp16)"),
        ("Task", _listed(facts["task"])),
        ("Teacher", facts["teacher"]),
        ("Command", f"`{facts['command']}`" if facts["command"] else "not recorded"),
        ("Updates", f"{facts['step']:,} of {images} images"),
        ("Time", f"{facts['hours']:.2f} h, {facts['loading_share']:.1%} of it waiting for images"),
        (
            "Hardware",
            f"{machine['name']}, {counted(machine['threads'], 'thread')}, "
            f"{counted(machine['processes'], 'process', 'processes')}, "
            f"{machine['precision']}, torch {machine['torch']}",
        ),
        ("Started from", facts["started_from"]),
        ("Last losses", _listed(facts["losses"])),
        ("Held-out figures", _listed(facts["figures"])),
    ]


def evaluation_lines(path: Path) -> list[str]:
    """The held-out figures in the course of a run, at most 12 of them, evenly chosen, the last one always."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return []
    # Counted from the end, so that the last is there.
    chosen = rows[:: -math.ceil(len(rows) / 12)][::-1]
    names = list(rows[0])
    lines = ["## Held-out figures during the run", "", f"| {' | '.join(names)} |", "|" + "---:|" * len(names)]
    for row in chosen:
        values = [row["step"], *(row[name] and f"{float(row[name]):.4g}" for name in names if name != "step")]
        lines.append(f"| {' | '.join(values)} |")
    return [*lines, ""]


def table_lines(rows: Sequence[tuple[str, str]]) -> list[str]:
    """A Markdown table without heading, empty values left out."""
    cells = [(name, " ".join(str(value).split()).replace("|", r"\|")) for name, value in rows if value]
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in cells)]


def data_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return lines on what a run was trained on, and what was noted of it."""
    lines = []
    for name, data in facts["data"].items():
        folders = ", ".join(f"{folder} ({n})" for folder, n in data["folders"].items())
        skipped = f"; unreadable and skipped: {', '.join(data['skipped'])}" if data["skipped"] else ""
        lines.append(f"- {name}: {counted(data['images'], 'image')} from {folders}{skipped}")
    return [*lines, "", facts["notes"] or "Licences of the training images: not recorded; see their sources."]


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())


def plot_losses(folder: Path) -> Path | None:
    """losses.png: each loss against the update, the raw values faint under their running median; None without rows."""
    import numpy as np
    from matplotlib.figure import Figure

    path = folder / "losses.csv"
    if not path.exists():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if len(rows) < 2:
        return None
    steps = np.array([int(row["step"]) for row in rows])
    names = [name for name in rows[0] if name not in ("step", "lr", "grad_norm")]
    figure = Figure(figsize=(8, 2.6 * len(names)))
    for axis, name in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        values = np.array([float(row[name]) for row in rows])
        width = max(1, len(values) // 50)
        ends = np.arange(width, len(values) + 1, width)
        axis.plot(steps, values, color="0.8", linewidth=0.5)
        axis.plot(steps[ends - 1], [np.median(values[e - width : e]) for e in ends], color="C0")
        axis.set_ylabel(name)
        if (values > 0).all():
            axis.set_yscale("log")
            axis.minorticks_off()
    figure.supxlabel("update")
    target = folder / "losses.png"
    with files.replacing(target) as work:
        figure.savefig(work, dpi=100, format="png")
    return target
