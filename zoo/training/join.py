"""One checkpoint out of several: each part's tensors under a prefix, and what each part says of itself kept.

WCT runs five decoders and ships one file, whose keys are ``level1.conv1_1.weight`` and so on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from zoo import files
from zoo.errors import NumericalError, WeightsError
from zoo.provenance import written
from zoo.training.export import data_lines, facts_rows, read_metadata, table_lines
from zoo.weights import read_state


def join_checkpoints(out: Path, parts: Mapping[str, Path]) -> tuple[Path, Path]:
    """Write the fp16 tensors of ``parts`` (file by prefix) to ``out`` as ``prefix.key``, and a card beside it.

    The parts are checkpoints that the trainer wrote, of one method; the metadata holds their hours and steps summed
    and each part's own under ``parts``. Returns the file and the card (``out`` with the ending .md). WeightsError
    where a part cannot be read or belongs to another method, NumericalError where a weight does not fit fp16; before
    anything is read, ConfigError where ``out`` or the card cannot be written.
    """
    if not parts or any(re.fullmatch(r"[\w-]+", prefix) is None for prefix in parts):
        raise WeightsError(
            "Parts are given as name=FILE, the name of letters and digits, such as level1=a.safetensors."
        )
    card = out.with_suffix(".md")
    for target in (out, card):
        files.check_creatable(target)
    facts = {prefix: _facts(path, prefix) for prefix, path in parts.items()}
    for path, part in zip(parts.values(), facts.values(), strict=True):
        if "config" not in part:
            raise WeightsError(f"{path} was not written by the trainer: only trained parts can be joined.")
    methods = sorted({str(part["method"]) for part in facts.values()})
    if len(methods) > 1:
        raise WeightsError(f"The parts belong to several methods ({', '.join(methods)}): join those of one.")
    state: dict[str, Tensor] = {}
    for prefix, path in parts.items():
        part = read_state(path)
        # A file that was joined before gives its part of the same name.
        own = {key: value for key, value in part.items() if key.startswith(f"{prefix}.")}
        for key, value in (own or part).items():
            half = value.to(torch.float16) if value.is_floating_point() else value
            if not torch.isfinite(half).all():
                raise NumericalError(f"Weight {key!r} of {path} is not finite in fp16.")
            state[f"{prefix}.{key.removeprefix(f'{prefix}.')}"] = half.contiguous()
        facts[prefix].setdefault("sha256", hashlib.sha256(path.read_bytes()).hexdigest())
    first = next(iter(facts.values()))
    record = {
        "method": first["method"],
        "paper": first.get("paper", ""),
        "hours": round(sum(float(part.get("hours", 0)) for part in facts.values()), 4),
        "step": sum(int(part.get("step", 0)) for part in facts.values()),
        "parts": facts,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write(out, save(state, written(record)))
    return out, write_joined_card(out, card)


def _facts(path: Path, prefix: str) -> dict[str, Any]:
    """Return what the part ``prefix`` says of itself, in a file of its own or in one that was joined before."""
    facts = read_metadata(path)
    return facts.get("parts", {}).get(prefix, facts)


def write_joined_card(checkpoint: Path, path: Path) -> Path:
    """The card of a joined checkpoint, from its metadata: the whole first, then what each part says of itself."""
    facts = read_metadata(checkpoint)
    count: dict[str, int] = {}
    with safe_open(checkpoint, "pt") as file:
        for key in file.keys():  # noqa: SIM118  # not a mapping
            prefix = key.partition(".")[0]
            count[prefix] = count.get(prefix, 0) + file.get_tensor(key).numel()
    lines = [f"# {facts['method']}: {checkpoint.name}", ""]
    lines += table_lines(
        [
            ("Method", facts["method"]),
            ("Paper", facts["paper"]),
            ("Parameters", f"{sum(count.values()):,} (fp16) in {len(count)} parts"),
            ("Updates", f"{facts['step']:,} in the last runs of all parts"),
            ("Time", f"{facts['hours']:.2f} h in the last runs of all parts"),
        ]
    )
    for prefix, part in facts["parts"].items():
        lines += ["", f"## {prefix}", ""]
        lines += table_lines([*facts_rows(part, count[prefix])[2:], ("Joined from sha256", part["sha256"])])
        lines += ["", *data_lines(part)]
    files.write(path, "\n".join(lines).rstrip() + "\n")
    return path
