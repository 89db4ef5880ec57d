"""``learning.jsonl``: what no other file knows, so that a catalog that was lost has it again.

Published policies, evaluations, and which update of a learner was the first to use a label. A line is ``{"what": ..., "row": {...}}``,
appended and synced before the catalog has it, under the same kind of lock as ``labels.jsonl``. Rows are never changed: of two policies of
one number the younger one holds, of two uses of one label the one that knows the published version.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from takeover.data.catalog_rows import EvaluationRow, LabelUse, PolicyRow
from takeover.data.catalog_tables import evaluations, label_uses, meta, policies
from takeover.data.label_log import open_log

if TYPE_CHECKING:
    from takeover.data.catalog import Catalog

Row = PolicyRow | EvaluationRow | LabelUse
KINDS: dict[str, type[Row]] = {"policy": PolicyRow, "evaluation": EvaluationRow, "label use": LabelUse}


@dataclass(frozen=True)
class Agreed:
    """What `agree` did. ``broken``: a text for every line that cannot be read; their rows are missing until they are mended."""

    entered: int = 0
    written: int = 0
    broken: list[str] = field(default_factory=list)


def append(path: Path | None, rows: Sequence[Row]) -> None:
    """Add rows, durable when this returns. Nothing without a path: a catalog that belongs to no workspace. Raises `OSError`."""
    if path is None or not rows:
        return
    names = {kind: name for name, kind in KINDS.items()}
    with open_log(path) as log:
        lines = (json.dumps({"what": names[type(row)], "row": msgspec.structs.asdict(row)}) for row in rows)
        log.write("".join(f"{line}\n" for line in lines).encode())


def read_line(line: bytes) -> Row:
    """Raises `ValueError` for a line that is none. Metrics may be NaN, so this is Python's own dialect of JSON."""
    found = json.loads(line.decode())
    if not isinstance(found, dict) or found.keys() != {"what", "row"} or found["what"] not in KINDS:
        raise ValueError(f"not a map of a row and what it is; known: {', '.join(KINDS)}")
    try:
        return msgspec.convert(found["row"], KINDS[found["what"]])
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def read_rows(path: Path | None) -> tuple[list[Row], dict[int, str]]:
    """(rows in the order they were written, {line number: why it cannot be read}); a last line without its end is left out."""
    rows: list[Row] = []
    broken: dict[int, str] = {}
    data = path.read_bytes() if path is not None and path.exists() else b""
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n"), start=1):
        try:
            if line:
                rows.append(read_line(line))
        except ValueError as error:
            broken[number] = str(error)
    return rows, broken


def differing(catalog: "Catalog") -> tuple[list[Row], list[Row], dict[int, str]]:
    """(rows that only the log has, rows that only the catalog has, broken lines)."""
    logged, broken = read_rows(catalog.log_path)
    with catalog.engine.connect() as connection:
        uses = [LabelUse(**row._mapping) for row in connection.execute(select(label_uses).order_by(label_uses.c.wall_ns))]
    here, there = _newest([*catalog.policies(), *catalog.evaluations(), *uses]), _newest(logged)
    return _lacking(there, here), _lacking(here, there), broken


def agree(catalog: "Catalog") -> Agreed:
    """Enter what only the log has, and write into the log what only the catalog has. Raises `OSError`."""
    if catalog.log_path is None:
        return Agreed()
    entered, written, broken = differing(catalog)
    if entered or written:
        with catalog.writing() as connection:
            connection.execute(update(meta).where(meta.c.name == "uses").values(value=meta.c.value + 1))  # nobody else notes uses now
            entered, written, broken = differing(catalog)
            append(catalog.log_path, written)
            _enter(connection, entered)
    said = f"{catalog.log_path}, line {{}}: {{}}; `takeover data repair` sets the line aside and keeps the others"
    return Agreed(len(entered), len(written), [said.format(number, why) for number, why in broken.items()])


def _key(row: Row) -> Any:
    if isinstance(row, PolicyRow):
        return "policy", row.session_id, row.version
    return row if isinstance(row, EvaluationRow) else ("use", row.event_id, row.learner)


def _age(row: Row) -> int:
    """Of two rows of one key the greater one holds."""
    return row.policy_version if isinstance(row, LabelUse) else row.created_ns


def _newest(rows: Iterable[Row]) -> dict[Any, Row]:
    found: dict[Any, Row] = {}
    for row in rows:
        key = _key(row)
        if key not in found or _age(row) > _age(found[key]) or (isinstance(row, PolicyRow) and _age(row) == _age(found[key])):
            found[key] = row
    return found


def _lacking(there: dict[Any, Row], here: dict[Any, Row]) -> list[Row]:
    return [row for key, row in there.items() if key not in here or _age(row) > _age(here[key])]


def _enter(connection: Connection, rows: Sequence[Row]) -> None:
    for row in rows:
        fields = msgspec.structs.asdict(row)
        if isinstance(row, PolicyRow):
            connection.execute(delete(policies).where(policies.c.session_id == row.session_id, policies.c.version == row.version))
            connection.execute(insert(policies), [fields | {"metrics": json.dumps(row.metrics)}])
        elif isinstance(row, EvaluationRow):
            connection.execute(insert(evaluations), [fields])
        else:
            mine = (label_uses.c.event_id == row.event_id) & (label_uses.c.learner == row.learner)
            connection.execute(delete(label_uses).where(mine))
            connection.execute(insert(label_uses), [fields])
