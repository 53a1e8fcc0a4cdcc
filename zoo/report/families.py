"""The groups that methods stand in, in tables and texts."""

from __future__ import annotations

from zoo.registry import MethodEntry, Registry

# Groups of a table, after the taxonomy of Jing et al., "Neural style transfer: a review", TVCG 2020, in its order.
OPTIMIZATION = "image optimisation"
NETWORKS = {
    "one": "networks of one style",
    "many": "networks of several styles",
    "any": "networks of any style",
}
OTHERS = "other pictures"
SANITY = "sanity rows"
FAMILIES = (OPTIMIZATION, *NETWORKS.values(), OTHERS, SANITY)


def method_entry(label: str, registry: Registry) -> MethodEntry | None:
    """The registry's entry for a row's label, such as ``gatys.zoo[num_steps=50]``; None for pictures made elsewhere."""
    return registry.methods.get(label.partition("[")[0].partition(".")[0])


def family(label: str, registry: Registry) -> str:
    """The group that a method stands in: one of FAMILIES."""
    entry = method_entry(label, registry)
    if entry is None:
        return OTHERS
    return OPTIMIZATION if entry.taxonomy.optimizes == "image" else NETWORKS[entry.taxonomy.styles]
