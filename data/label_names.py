"""Tags and subtasks that labels name already, for completion while typing."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Select, func, select

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import label_state

MOST_NAMES = 200
_TAG = "tag:"


def next_tag(after: str = _TAG) -> Select[Any]:
    """The first label field after this one: a tag's, or one that follows all tags."""
    return select(func.min(label_state.c.field)).where(label_state.c.field > after)


def next_subtask(after: str = "") -> Select[Any]:
    """The first subtask after this one."""
    return select(func.min(label_state.c.value)).where(label_state.c.field == "subtask", label_state.c.value > after)


def known_tags(catalog: Catalog, most: int = MOST_NAMES) -> list[str]:
    """Tags that any segment or episode has or had, without ``tag:``, sorted; at most ``most``. One index look-up each."""
    return sorted(name.removeprefix(_TAG) for name in _walk(catalog, next_tag, _TAG, most))


def known_subtasks(catalog: Catalog, most: int = MOST_NAMES) -> list[str]:
    """Subtasks that segments have, sorted; at most ``most``. One index look-up each."""
    return sorted(_walk(catalog, next_subtask, "", most))


def _walk(catalog: Catalog, following: Callable[[str], Select[Any]], name: str, most: int) -> list[str]:
    found: list[str] = []
    with catalog.engine.connect() as connection:
        while len(found) < most:
            value = connection.execute(following(name)).scalar()
            if value is None or (name.startswith(_TAG) and not str(value).startswith(_TAG)):
                break
            name = str(value)
            found.append(name)
    return found
