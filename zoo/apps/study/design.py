"""Which methods meet on which pair of images, on which side and in which judge's form. Numbers only.

Every set of ``choices`` methods of one *cycle* meets once on every pair of images. A cycle of pairs is every two
methods once; of larger sets it is the shortest beginning of a drawn order after which every two methods have met
equally often (at the latest, all sets). The sets are dealt out over the pairs of images like a Latin square: in round
t the q-th set is shown on pair q + t, so any stretch of the order shows all methods and all pairs about equally often.
The order is cut into *forms* of nearly equal length. Each form is there ``choices`` times, the pictures moved by one
place each time (two pictures: exchanged), so that over a whole *round* of forms every set stands in every place equally
often on every pair. Inside a form every method stands left as often as right, give or take one.

Beside the judgements that count, a form holds attention checks (the photograph itself against the style picture
itself) and repeats: an earlier judgement with its pictures in the other order, never counted, which shows how far a
judge agrees with himself.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from zoo.errors import ConfigError

# In the place of a method: the photograph and the style picture themselves, which attention checks show.
PHOTOGRAPH, STYLE = -1, -2
# Sets of methods are ordered by comparing all that are left: more would take minutes.
_LARGEST_CYCLE = 1000


@dataclass(frozen=True)
class Trial:
    """One comparison: the pair of images ``item``, and the ``options`` in the order shown, methods by number.

    ``source`` is, for a repeat, the place in the form's list of the trial that it repeats.
    """

    kind: Literal["judgement", "check", "repeat"]
    item: int
    options: tuple[int, ...]
    source: int | None = None


@dataclass(frozen=True)
class Design:
    """``forms`` of trials; every ``round_length`` of them in a row are one whole, exactly balanced round."""

    forms: tuple[tuple[Trial, ...], ...]
    round_length: int


def make_design(
    methods: int,
    items: int,
    *,
    choices: int = 2,
    per_judge: int = 30,
    judges: int = 1,
    checks: int = 4,
    repeats: int = 3,
    seed: int = 0,
) -> Design:
    """Whole rounds of forms for ``methods`` on ``items`` pairs of images, at least one form per judge expected.

    ``per_judge`` is the largest number of judgements in a form. Every round is drawn anew. Raises ConfigError where
    there are fewer methods than ``choices`` or a number is out of range.
    """
    if choices < 2 or methods < choices:
        raise ConfigError(
            f"A comparison of {choices} pictures needs as many methods, at least two: here are {methods}."
        )
    if items < 1 or per_judge < 1 or judges < 1 or checks < 0 or repeats < 0:
        raise ConfigError("A study needs a pair of images, a judge and a judgement, and no negative number of checks.")
    draw = random.Random(seed)
    # One cycle for all rounds, in other methods each time: how long a cycle is depends on its order.
    cycle = _cycle(methods, choices, draw)
    forms: list[tuple[Trial, ...]] = []
    length = 0
    while len(forms) < judges:
        names = draw.sample(range(methods), methods)
        renamed = [tuple(sorted(names[method] for method in chosen)) for chosen in cycle]
        found = _round(renamed, items, choices, per_judge, checks, repeats, draw)
        length = len(found)
        forms += found
    return Design(tuple(forms), length)


def _round(
    cycle: Sequence[tuple[int, ...]],
    items: int,
    choices: int,
    per_judge: int,
    checks: int,
    repeats: int,
    draw: random.Random,
) -> list[tuple[Trial, ...]]:
    order = draw.sample(range(items), items)
    deals = [(order[(q + t) % items], chosen) for t in range(items) for q, chosen in enumerate(cycle)]
    count = -(-len(deals) // per_judge)
    bounds = [len(deals) * i // count for i in range(count + 1)]
    parts = []
    for start, end in itertools.pairwise(bounds):
        own = deals[start:end]
        sided = _sides([chosen for _, chosen in own], draw)
        parts.append([Trial("judgement", item, options) for (item, _), options in zip(own, sided, strict=True)])
    # Every set on every pair first, in other places afterwards: a round that stays unfinished has compared everything.
    return [
        _ordered([_turned(trial, turn) for trial in part], items, checks, repeats, draw)
        for turn in range(choices)
        for part in parts
    ]


def _turned(trial: Trial, turn: int) -> Trial:
    return replace(trial, options=trial.options[turn:] + trial.options[:turn])


def _cycle(methods: int, choices: int, draw: random.Random) -> list[tuple[int, ...]]:
    """Sets of methods in an order that has every method, then every two methods, as even as can be at every point."""
    left = list(itertools.combinations(range(methods), choices))
    if len(left) > _LARGEST_CYCLE:
        raise ConfigError(
            f"{methods} methods have {len(left)} sets of {choices}, more than any study can ask: name fewer methods, "
            "or show fewer at a time."
        )
    draw.shuffle(left)
    single: Counter[int] = Counter()
    meetings: Counter[tuple[int, ...]] = Counter()
    found = []
    while left:
        best = min(
            range(len(left)),
            key=lambda i: (
                sum(meetings[pair] for pair in itertools.combinations(left[i], 2)),
                sum(single[method] for method in left[i]),
            ),
        )
        chosen = left.pop(best)
        found.append(chosen)
        single.update(chosen)
        meetings.update(itertools.combinations(chosen, 2))
        if len(meetings) == methods * (methods - 1) // 2 and len(set(meetings.values())) == 1:
            break
    return found


def _sides(sets: Sequence[tuple[int, ...]], draw: random.Random) -> list[tuple[int, ...]]:
    """Each set in the order shown. Of two pictures every method stands left as often as right, give or take one."""
    if not sets or len(sets[0]) > 2:
        return [tuple(draw.sample(chosen, len(chosen))) for chosen in sets]
    # Methods are the vertices of a graph, comparisons its edges. Trails that begin where the degree is odd, then closed
    # ones, each walked from left to right, leave every vertex as often as they enter it, or once more or less.
    edges: dict[int, list[int]] = defaultdict(list)
    for number in draw.sample(range(len(sets)), len(sets)):
        for method in sets[number]:
            edges[method].append(number)
    found: dict[int, tuple[int, ...]] = {}
    for odd_only in (True, False):
        for start in sorted(edges):
            if odd_only and sum(number not in found for number in edges[start]) % 2 == 0:
                continue
            at = start
            while (number := next((n for n in edges[at] if n not in found), None)) is not None:
                other = sets[number][1] if sets[number][0] == at else sets[number][0]
                found[number] = (at, other)
                at = other
            # A trail can get stuck only where the degree was odd, so the first pass leaves none of those behind.
    return [found[number] for number in range(len(sets))]


def _ordered(
    judgements: Sequence[Trial], items: int, checks: int, repeats: int, draw: random.Random
) -> tuple[Trial, ...]:
    """One form: judgements in drawn order, checks spread over all of it but the very beginning, repeats at the end.

    What is repeated comes from the first half and is repeated in the last third.
    """
    order = draw.sample(judgements, len(judgements))
    entries: list[tuple[float, Trial, int | None]] = [(float(i), trial, None) for i, trial in enumerate(order)]
    half = max(1, len(order) // 2)
    for source in draw.sample(range(half), min(repeats, half)):
        again = replace(order[source], kind="repeat", options=order[source].options[::-1])
        entries.append((draw.uniform(max(source + 0.5, len(order) * 2 / 3 - 0.5), len(order)), again, source))
    shown = draw.sample(range(items), items)
    first = draw.random() < 0.5
    for i in range(checks):
        options = (PHOTOGRAPH, STYLE) if first != bool(i % 2) else (STYLE, PHOTOGRAPH)
        place = draw.uniform(len(order) * i / checks, len(order) * (i + 1) / checks)
        entries.append((max(place, 0.5), Trial("check", shown[i % items], options), None))
    entries.sort(key=lambda entry: entry[0])
    places = {int(at): i for i, (at, trial, _) in enumerate(entries) if trial.kind == "judgement"}
    return tuple(trial if source is None else replace(trial, source=places[source]) for _, trial, source in entries)
