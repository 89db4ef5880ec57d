"""What SQLite does for each page query: the steps of its plan, and those that read a whole big table."""

import re
from typing import Any

from sqlalchemy import Select, func, select, text
from sqlalchemy.dialects import sqlite

from takeover.data.catalog import Catalog
from takeover.data.catalog_queries import SegmentFilter, segment_count, segment_pages
from takeover.data.catalog_tables import claims, episodes, label_events, label_state, label_uses, segments, sessions
from takeover.data.episode_pages import EpisodeFilter, episode_page
from takeover.data.label_names import next_subtask, next_tag
from takeover.data.queue_rows import flagged_within, labels_within, newest_segments, reviewed_since

_PLACE = (1_700_000_500_000_000_000, "~")
SEGMENT_FILTERS = {
    "all": SegmentFilter(),
    "kind": SegmentFilter(kinds=("takeover",)),
    "kinds": SegmentFilter(kinds=("safety", "failure")),
    "open": SegmentFilter(state="open"),
    "labeled": SegmentFilter(state="labeled"),
    "done": SegmentFilter(state="done"),
    "cause": SegmentFilter(cause="force"),
    "session": SegmentFilter(session_id="s000001"),
    "task": SegmentFilter(task_id="pour"),
    "operator": SegmentFilter(operator="op-01"),
    "version": SegmentFilter(policy_version=3),
    "episodes": SegmentFilter(episode_ids=("01e", "01f")),
    "time": SegmentFilter(started_from_ns=_PLACE[0], started_to_ns=_PLACE[0] + 10**12),
    "several": SegmentFilter(session_id="s000001", kinds=("takeover", "failure"), cause="force", state="done"),
    "cause open": SegmentFilter(cause="force", state="open"),
    "kinds open": SegmentFilter(kinds=("safety", "failure"), state="open"),
    "kind labeled": SegmentFilter(kinds=("safety",), state="labeled"),
    "cause until": SegmentFilter(cause="force", started_to_ns=_PLACE[0] + 10**12),
    "version, task": SegmentFilter(policy_version=3, task_id="pour"),
    "cause, task": SegmentFilter(cause="force", task_id="pour"),
    "operator, kind": SegmentFilter(operator="op-01", kinds=("takeover",)),
    "session, version": SegmentFilter(session_id="s000001", policy_version=3),
    "task, open": SegmentFilter(task_id="pour", state="open"),
    "tag": SegmentFilter(tag="slippery"),
}
EPISODE_FILTERS = {
    "all": EpisodeFilter(),
    "task": EpisodeFilter(task="pour"),
    "operator": EpisodeFilter(operator="op-01"),
    "version": EpisodeFilter(policy_version=3),
    "outcome": EpisodeFilter(outcome="failure"),
    "cause": EpisodeFilter(cause="force"),
    "kind": EpisodeFilter(kind="policy"),
    "intervention": EpisodeFilter(has_intervention=True),
    "session": EpisodeFilter(session="s000001"),
    "dates": EpisodeFilter(from_ns=_PLACE[0], to_ns=_PLACE[0] + 10**12),
    "several": EpisodeFilter(task="pour", operator="op-01", outcome="failure", cause="force", kind="policy", has_intervention=True),
}


def label_statements() -> dict[str, Select[Any]]:
    """What labelers, the learner and the index ask."""
    events, state = label_events.c, label_state.c
    newest = (events.wall_ns.desc(), events.id.desc())
    blind = select(label_events).where(events.blind.is_(True), events.field == "cause")
    return {
        "labels of targets": select(state.field).where(state.target.in_(("a", "b")), state.value != ""),
        "labels with a field": select(state.target).where(state.field == "exclude", state.value != ""),
        "history": select(label_events).where(events.target == "a").order_by(events.wall_ns, events.id),
        "events since": select(label_events).where(events.wall_ns >= 5).order_by(events.wall_ns, events.id),
        "steps of an author": select(label_events).where(events.author == "a", events.wall_ns <= 9).order_by(*newest).limit(200),
        "second opinions": blind,
        "events after": select(label_events).where(events.number > 5).order_by(events.number),
        "uses": select(label_uses).where(label_uses.c.target.in_(("a", "b"))),
        "claims": select(claims).where(claims.c.segment_id.in_(("a", "b")), claims.c.expires_ns > 5),
        "excluded segments": select(segments.c.id).where(segments.c.excluded.is_(True)),
        "discarded episodes": select(episodes.c.id).where(episodes.c.discarded),
        "steps of a session": select(func.sum(episodes.c.steps)).where(episodes.c.session_id == "s"),
        "newest blind labels": blind.order_by(events.number.desc()).limit(9),
        "queue": newest_segments(2000),
        "labels of the queue": labels_within(["a", "b"]),
        "figures of a session": flagged_within("s", 50_000),
        "decisions of a person": reviewed_since(5, "a"),
        "next tag": next_tag(),
        "next subtask": next_subtask(),
        "sessions": select(sessions).where(sessions.c.id == "s"),
    }


def statements() -> dict[str, Select[Any]]:
    """Every page and count, by name."""
    made: dict[str, Select[Any]] = {}
    for name, filters in SEGMENT_FILTERS.items():
        for at, place in (("first", None), ("deep", _PLACE)):
            for number, page in enumerate(segment_pages(filters, 200, place=place)):
                made[f"segments {name} {at}" + (f" {number}" if number else "")] = page
        made[f"count {name}"] = segment_count(filters, 10_000)
    for name, choice in EPISODE_FILTERS.items():
        for at, place in (("first", None), ("deep", _PLACE)):
            made[f"episodes {name} {at}"] = episode_page(choice, 50, place=place)
    return made | label_statements()


def plans_of(catalog: Catalog) -> dict[str, list[str]]:
    """{statement: steps of its plan}. SQLite only."""
    found = {}
    with catalog.engine.connect() as connection:
        for name, statement in statements().items():
            sql = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))  # type: ignore[no-untyped-call]
            found[name] = [str(row[3]) for row in connection.execute(text(f"EXPLAIN QUERY PLAN {sql.replace(':', chr(92) + ':')}"))]
    return found


def whole_reads(steps: list[str]) -> list[str]:
    """Steps that read a big table without an index, or sort more than equal times."""
    scans = [step for step in steps if re.fullmatch(r"SCAN (segments|episodes|labels|label_state|label_uses|claims)( AS \w+)?", step)]
    return scans + [step for step in steps if step == "USE TEMP B-TREE FOR ORDER BY"]
