"""Tags and subtasks that labels name already, for completion while typing."""

from sqlalchemy import func, select

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import label_state

MOST_NAMES = 200
_TAG = "tag:"


def known_tags(catalog: Catalog, most: int = MOST_NAMES) -> list[str]:
    """Tags that any segment or episode has or had, without ``tag:``, sorted; at most ``most``. One index look-up each."""
    found: list[str] = []
    query = select(func.min(label_state.c.field)).where(label_state.c.field.like(f"{_TAG}%"))
    with catalog.engine.connect() as connection:
        name = connection.execute(query.where(label_state.c.field >= _TAG)).scalar()
        while name is not None and len(found) < most:
            found.append(str(name)[len(_TAG) :])
            name = connection.execute(query.where(label_state.c.field > name)).scalar()
    return sorted(found)


def known_subtasks(catalog: Catalog, most: int = MOST_NAMES) -> list[str]:
    """Subtasks that segments have, sorted; at most ``most``. One index look-up each."""
    found: list[str] = []
    query = select(func.min(label_state.c.value)).where(label_state.c.field == "subtask")
    with catalog.engine.connect() as connection:
        name = connection.execute(query.where(label_state.c.value > "")).scalar()
        while name is not None and len(found) < most:
            found.append(str(name))
            name = connection.execute(query.where(label_state.c.value > name)).scalar()
    return sorted(found)
