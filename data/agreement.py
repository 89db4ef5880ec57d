"""How far two labelers agree who saw the same segment without each other's labels: Cohen's kappa with its n and an interval."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import select

from takeover.data.catalog import Catalog
from takeover.data.catalog_current import parts
from takeover.data.catalog_tables import LabelEvent, label_events
from takeover.data.label_fields import AGREEMENT_FIELDS
from takeover.data.label_store import event_of, event_query
from takeover.data.statistics import wilson


@dataclass(frozen=True)
class Agreement:
    """``n`` doubled segments, the share on which both said the same, kappa with a 95 % interval; NaN where it is not defined.

    The interval is Wilson's for the observed share, with the agreement to expect by chance taken as known: it stays honest for few
    segments and full agreement, where a normal approximation shrinks to nothing. ``classes``: {value: doubles in which either said it}.
    """

    name: str  # the label's field
    n: int
    observed: float
    kappa: float
    low: float
    high: float
    classes: dict[str, int] = field(default_factory=dict)


def cohen_kappa(name: str, pairs: Sequence[tuple[str, str]]) -> Agreement:
    """Agreement of (first, second) values."""
    n = len(pairs)
    classes = Counter(value for pair in pairs for value in set(pair))
    if n == 0:
        return Agreement(name, 0, math.nan, math.nan, math.nan, math.nan)
    same = sum(first == second for first, second in pairs)
    firsts, seconds = Counter(first for first, _ in pairs), Counter(second for _, second in pairs)
    chance = sum(firsts[value] * seconds[value] for value in firsts) / (n * n)
    if chance >= 1.0:  # both always said one and the same: nothing could have been otherwise
        return Agreement(name, n, same / n, math.nan, math.nan, math.nan, dict(sorted(classes.items())))
    kappa, low, high = ((share - chance) / (1.0 - chance) for share in (same / n, *wilson(same, n)))
    return Agreement(name, n, same / n, kappa, low, high, dict(sorted(classes.items())))


def by_class(pairs: Sequence[tuple[str, str]], values: Sequence[str]) -> dict[str, Agreement]:
    """{value: agreement on whether it is this one or another}; ``n`` of each is the number of doubles in which either said it."""
    found = {}
    for value in values:
        one = cohen_kappa(value, [("yes" if first == value else "no", "yes" if second == value else "no") for first, second in pairs])
        found[value] = replace(one, n=sum(value in pair for pair in pairs))
    return found


def doubled(catalog: Catalog, name: str, newest: int = 0) -> dict[str, list[tuple[str, str]]]:
    """{segment: (first labeler's value, blind value) of each second opinion} for one field.

    ``newest``: only of so many blind labels, those entered last; 0: of all. The first labeler's is what stood before the second
    opinion began: what is changed after talking about it does not count.
    """
    with catalog.engine.connect() as connection:
        query = event_query().where(label_events.c.blind.is_(True), label_events.c.field == name)
        if newest:
            query = query.order_by(label_events.c.number.desc()).limit(newest)
        blind = [event_of(row) for row in connection.execute(query)]
        targets = sorted({event.target for event in blind})
        open_events: dict[str, list[LabelEvent]] = {}
        for part in parts(targets):
            query = event_query().where(label_events.c.target.in_(part), label_events.c.field == name, label_events.c.blind.is_(False))
            for event in map(event_of, connection.execute(query)):
                open_events.setdefault(event.target, []).append(event)
        began = _began(catalog, targets)
    found: dict[str, list[tuple[str, str]]] = {}
    for target, author in sorted({(event.target, event.author) for event in blind}):
        second = max((e for e in blind if (e.target, e.author) == (target, author)), key=_order)
        before = [e for e in open_events.get(target, []) if e.author != author and e.wall_ns < began[(target, author)]]
        first = max(before, key=_order, default=None)
        if first is not None and first.value and second.value:
            found.setdefault(target, []).append((first.value, second.value))
    return found


def _began(catalog: Catalog, targets: Sequence[str]) -> dict[tuple[str, str], int]:
    """When each second opinion began: its first event, of whatever field."""
    found: dict[tuple[str, str], int] = {}
    query = select(label_events.c.target, label_events.c.author, label_events.c.wall_ns)
    with catalog.engine.connect() as connection:
        for part in parts(targets):
            rows = connection.execute(query.where(label_events.c.target.in_(part), label_events.c.blind.is_(True)))
            for target, author, wall_ns in rows:
                found[(target, author)] = min(wall_ns, found.get((target, author), wall_ns))
    return found


def _order(event: LabelEvent) -> tuple[int, str]:
    return event.wall_ns, event.id


def agreements(catalog: Catalog) -> list[Agreement]:
    """One per field that labelers can agree on."""
    return [cohen_kappa(name, [pair for pairs in doubled(catalog, name).values() for pair in pairs]) for name in AGREEMENT_FIELDS]
