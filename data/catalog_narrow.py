"""Words and tags that few segments have: looked up first, so that a page does not read every row for them."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, func, or_, select

from takeover.data.catalog_current import padded
from takeover.data.catalog_tables import episodes, label_state, segments
from takeover.data.label_fields import FIELDS

FEW = 2000
KINDS = ("takeover", "failure", "safety")
_FREE = ("note", "subtask")  # labels that say anything; the others say one of a few words


def like_of(text: str) -> str:
    """A LIKE pattern, escaped with a backslash, for lower-case text that contains ``text``."""
    escaped = text.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def few_with(connection: Connection, tag: str, text: str) -> list[ColumnElement[bool]]:
    """Conditions that name the rows by key, for what few of them have; what many have is left to be looked for on the way."""
    found: list[ColumnElement[bool]] = []
    if tag:
        query = select(label_state.c.target).where(label_state.c.field == f"tag:{tag}", label_state.c.value == "true")
        targets = _few(connection, query)
        if targets is not None:
            found.append(segments.c.id.in_(padded(targets)))
    if text:
        named = _few_with_text(connection, text)
        if named is not None:
            found.append(named)
    return found


def _few(connection: Connection, query: Any) -> list[str] | None:
    """At most `FEW` keys; None: there are more."""
    keys = list(connection.execute(query.limit(FEW + 1)).scalars())
    return keys if len(keys) <= FEW else None


def _few_with_text(connection: Connection, text: str) -> ColumnElement[bool] | None:
    low = text.lower()
    if any(low in word for word in (*KINDS, *_details(connection))):
        return None
    like = like_of(text)
    state = label_state.c
    queries = [select(state.target).where(state.field == name, func.lower(state.value).like(like, escape="\\")) for name in _FREE]
    queries += [
        select(state.target).where(state.field == name, state.value == value)
        for name, values in FIELDS.items()
        for value in values
        if low in value
    ]
    if low in "true":
        return None  # a tag's value
    targets: set[str] = set()
    for query in queries:
        some = _few(connection, query)
        if some is None:
            return None
        targets.update(some)
    owners = _few(connection, select(episodes.c.id).where(func.lower(episodes.c.id).like(like, escape="\\")))
    if owners is None or len(targets) > FEW:
        return None
    return or_(segments.c.id.in_(padded(sorted(targets))), segments.c.episode_id.in_(padded(owners)))


def _details(connection: Connection) -> list[str]:
    """The different reasons there are, one index look-up each."""
    found: list[str] = []
    query = select(func.min(segments.c.detail))
    value = connection.execute(query).scalar()
    while value is not None:
        found.append(value)
        value = connection.execute(query.where(segments.c.detail > value)).scalar()
    return [word.lower() for word in found]
