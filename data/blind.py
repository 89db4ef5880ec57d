"""Which segments a person is to label a second time, blind, and what they have said so far; nothing here shows the first opinion."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select

from takeover.data.catalog import Catalog
from takeover.data.catalog_current import parts
from takeover.data.catalog_tables import episodes, label_events
from takeover.data.claims import BLIND_PERCENT

FINISHED = ("submitted", "unsure")  # a second opinion is given; from then on the first may be seen


@dataclass(frozen=True)
class SecondOpinion:
    """``labels``: what the person has said blind, {field: value}. While not ``finished`` the first labeler's must not be shown.

    ``recorded_outcome``: of the episode, before anybody's label.
    """

    finished: bool
    recorded_outcome: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def is_drawn(segment_id: str, percent: int = BLIND_PERCENT) -> bool:
    """Whether a segment is among the ``percent`` (0 to 100) of all that are doubled: by its id, the same ones for everyone."""
    return zlib.crc32(segment_id.encode()) % 100 < percent


def second_opinions(catalog: Catalog, segment_ids: Sequence[str], person: str, percent: int = BLIND_PERCENT) -> dict[str, SecondOpinion]:
    """The segments that ``person`` is to label blind, or has: {segment: `SecondOpinion`}. ``segment_ids``: submitted ones.

    A segment is left out that the person has labelled openly before, or that somebody else labels blind already.
    """
    drawn = [key for key in segment_ids if is_drawn(key, percent)]
    query = select(
        label_events.c.target,
        label_events.c.episode_id,
        label_events.c.author,
        label_events.c.blind,
        label_events.c.field,
        label_events.c.value,
    ).order_by(label_events.c.wall_ns, label_events.c.id)
    own: dict[str, dict[str, str]] = {}
    owner: dict[str, str] = {}
    barred: set[str] = set()
    with catalog.engine.connect() as connection:
        for part in parts(drawn):
            for target, episode_id, author, blind, name, value in connection.execute(query.where(label_events.c.target.in_(part))):
                owner[target] = episode_id
                if blind and author == person:
                    own.setdefault(target, {})[name] = value
                elif blind or author == person:
                    barred.add(target)
        wanted = [key for key in owner if key in own or key not in barred]
        recorded: dict[str, str] = {}
        for part in parts(sorted({owner[key] for key in wanted})):
            for key, outcome in connection.execute(select(episodes.c.id, episodes.c.outcome).where(episodes.c.id.in_(part))):
                recorded[key] = str(outcome)
    made = {}
    for key in wanted:
        labels = {name: value for name, value in own.get(key, {}).items() if value}
        made[key] = SecondOpinion(labels.get("review", "") in FINISHED, recorded.get(owner[key], ""), labels)
    return made
