"""The ``.bib`` of a run: exactly the methods, metrics, networks, image sets and statistics that its tables use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from zoo.bench.measures import MEASURES
from zoo.bench.rows import Row
from zoo.references import references
from zoo.registry import Registry
from zoo.report.families import method_entry


def bibliography(rows: Iterable[Row], run_file: dict[str, Any], registry: Registry, extra: Iterable[str] = ()) -> str:
    """BibTeX of what the rows used, methods first; ``extra`` are further keywords, such as ``statistics:ranks``."""
    rows = list(rows)
    wanted = set(extra)
    methods: dict[str, str] = {}
    for label in dict.fromkeys(row.method for row in rows):
        entry = method_entry(label, registry)
        if entry is None:
            wanted.add(f"sanity:{label}")
            continue
        key = re.search(r"@\w+\{([^,\s]+),", entry.bibtex)
        if key:
            methods[key[1]] = entry.bibtex.strip()
    wanted |= {f"encoder:{row.encoder}" for row in rows if row.encoder}
    for name in {row.metric.partition("[")[0] for row in rows} - MEASURES.keys():
        metric = registry.metric(name)
        wanted |= {f"metric:{name}", f"encoder:{metric.encoder}", f"package:{metric.package}"}
    wanted |= {f"set:{name}" for name in image_sets(run_file)}
    used = [one for one in references().values() if one.of & wanted and one.key not in methods]
    texts = [one.text for one in used]
    return "\n\n".join([*methods.values(), *texts]) + "\n"


def image_sets(run_file: dict[str, Any]) -> list[str]:
    """Names of the sets that a protocol's images belong to, told by their hashes; ``builtin`` for the zoo's own.

    Sets share images, so they are named in turn, each for the images that those before it do not hold: the one with the
    most of them, of two with as many the smaller one, then the first by name.
    """
    from zoo import images
    from zoo.imagesets import list_sets, load_manifest

    resolved = run_file["protocol"]["resolved"]
    used = {(image["name"], image["sha256"]) for role in ("contents", "styles") for image in resolved.get(role, ())}
    left = {sha256 for _, sha256 in used}
    members = {name: {image.sha256 for image in load_manifest(name).images} for name in list_sets()}
    found = []
    while any(left & hashes for hashes in members.values()):
        name = max(members, key=lambda name: (len(left & members[name]), -len(members[name])))
        left -= members.pop(name)
        found.append(name)
    found.sort()
    photographs = {name for name, _ in used} & images.builtin_contents().keys()
    if any((name, images.read(f"builtin:{name}").sha256) in used for name in sorted(photographs)):
        found.insert(0, "builtin")
    return found
