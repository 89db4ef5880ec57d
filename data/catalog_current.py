"""Columns of the catalog that follow from others: current outcome and exclusion, a segment's cause and state, a session's counts.

They are written in the transaction of what they follow from, so that a page reads one table in the order of one index.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, select, update

from takeover.data.catalog_tables import episodes, label_state, segments, sessions

PART = 500  # ids per statement: servers limit the number of parameters


def parts(ids: Sequence[Any]) -> Iterator[list[Any]]:
    """``ids`` in pieces that fit into one statement, each `padded`."""
    for first in range(0, len(ids), PART):
        yield padded(ids[first : first + PART])


def padded(ids: Sequence[Any]) -> list[Any]:
    """The same ids for IN (...), the last one repeated up to the next power of two (at most `PART`).

    Each number of ids is a statement of its own text, and a connection keeps the last 128 texts prepared: with lists of every length it
    grew by up to a quarter of a megabyte for each new one.
    """
    if not ids:
        return []
    wanted = max(len(ids), min(1 << (len(ids) - 1).bit_length(), PART))
    return [*ids, *[ids[-1]] * (wanted - len(ids))]


def _label(table: Any, field: str, column: str = "value") -> Any:
    """The current label of a row of ``table``, "" where there is none."""
    found = select(label_state.c[column]).where(label_state.c.target == table.c.id, label_state.c.field == field)
    return func.coalesce(found.scalar_subquery(), "" if column == "value" else -1)


def refresh_episodes(connection: Connection, ids: Sequence[str] | None = None) -> None:
    """Work out again what holds now of these episodes and their segments; None: of all that have labels, and every session's counts."""
    if ids is None:
        _refresh(connection, select(label_state.c.episode_id).distinct())
        refresh_sessions(connection)
        return
    for part in parts(ids):
        _refresh(connection, part)


def _refresh(connection: Connection, ids: Any) -> None:
    outcome, exclude = _label(episodes, "outcome"), _label(episodes, "exclude")
    dated = and_(outcome != "", _label(episodes, "outcome", "step") >= 0)
    connection.execute(
        update(episodes)
        .where(episodes.c.id.in_(ids))
        .values(
            current_outcome=func.coalesce(func.nullif(outcome, ""), episodes.c.outcome),
            current_source=case((outcome != "", "label"), else_=episodes.c.outcome_source),
            current_step=case((dated, _label(episodes, "outcome", "step")), else_=episodes.c.event_step),
            excluded=case((exclude == "true", True), (exclude == "false", False), else_=episodes.c.discarded),
        )
    )
    cause = _label(segments, "cause")
    connection.execute(
        update(segments)
        .where(segments.c.episode_id.in_(ids))
        .values(
            cause=cause,
            labeled=case((cause != "", True), else_=False),
            done=case((_label(segments, "review") == "submitted", True), else_=False),
            excluded=case((_label(segments, "exclude") == "true", True), else_=False),
        )
    )


def fill_in(connection: Connection) -> None:
    """Everything anew, for a catalog that came without these columns or was filled by other means."""
    connection.execute(
        update(episodes).values(
            current_outcome=episodes.c.outcome,
            current_source=episodes.c.outcome_source,
            current_step=episodes.c.event_step,
            excluded=episodes.c.discarded,
        )
    )
    owner = segments.c.episode_id == episodes.c.id
    connection.execute(
        update(segments).values(
            session_id=_of_episode(episodes.c.session_id, owner),
            task_id=_of_episode(episodes.c.task_id, owner),
        )
    )
    refresh_episodes(connection)


def _of_episode(column: Any, owner: ColumnElement[bool]) -> Any:
    return func.coalesce(select(column).where(owner).scalar_subquery(), "")


def refresh_sessions(connection: Connection, ids: Sequence[str] | None = None) -> None:
    """Count the episodes and steps of these sessions again; None: of all."""
    mine = episodes.c.session_id == sessions.c.id
    change = update(sessions).values(
        episode_count=select(func.count()).select_from(episodes).where(mine).scalar_subquery(),
        step_count=func.coalesce(select(func.sum(episodes.c.steps)).where(mine).scalar_subquery(), 0),
    )
    connection.execute(change if ids is None else change.where(sessions.c.id.in_(padded(list(ids)))))
