"""Repair of ``labels.jsonl`` and ``learning.jsonl``: broken lines are kept aside, what only the catalog knows is written back."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from takeover.data.catalog import Catalog, damage_of
from takeover.data.catalog_log import agree, read_rows
from takeover.data.catalog_place import engine_of, has_catalog, url_of
from takeover.data.catalog_tables import LabelEvent, label_events
from takeover.data.hdf5_image import write_durably
from takeover.data.label_log import lines_of, locked
from takeover.data.verify_rest import unlike
from takeover.data.workspace import fsync_folder

if TYPE_CHECKING:
    from takeover.data.repair import Repair

BROKEN = ".broken"
"""What the file of lines that could not be read is called, after the log's own name."""


def repair_label_log(work: "Repair") -> None:
    """Make the label log readable and complete. Lines that cannot be read go to ``labels.jsonl.broken``; the old log is kept too."""
    path = work.workspace.labels_path
    in_catalog = _of_catalog(work)
    if not in_catalog and not path.exists():
        return
    with locked(path):
        data = path.read_bytes()
        events, bad = _sorted_out(data.split(b"\n"))
        cut = not bad and data[-1:] not in (b"", b"\n")
        known = {event.id for event in events}
        missing = [event for event in in_catalog if event.id not in known]
        if bad:
            _set_aside(work, path, bad)
        for said in unlike({event.id: event for event in events}, {event.id: event for event in in_catalog}):
            work.report.left.append(f"{path.name}: {said}")
        if missing:
            work.report.done.append(f"{path.name}: lacked {len(missing)} events that the catalog has; written back")
        if cut:
            work.report.done.append(f"{path.name}: the end of its last line was lost; written again")
        if bad or missing or cut:  # ids are ULIDs: in the order of time
            complete = sorted([*events, *missing], key=lambda event: event.id) if missing else events
            write_durably(path, lines_of(complete))


def repair_learning_log(work: "Repair", catalog: Catalog) -> None:
    """Take out lines that cannot be read, then let log and catalog tell each other what they lack."""
    path = work.workspace.learning_path
    if path.exists():
        with locked(path):
            _, broken = read_rows(path)
            if broken:
                lines = path.read_bytes().split(b"\n")
                _set_aside(work, path, {number: lines[number - 1] for number in broken})
                write_durably(path, b"\n".join(line for number, line in enumerate(lines, start=1) if number not in broken))
    found = agree(catalog)
    if found.entered:
        work.report.done.append(
            f"{path.name}: {found.entered} policies, evaluations or uses of labels were not in the catalog; entered them"
        )
    if found.written:
        work.report.done.append(f"{path.name}: lacked {found.written} rows that the catalog has; written back")


def _set_aside(work: "Repair", path: Path, bad: dict[int, bytes]) -> None:
    """Keep the log as it is and, in a file of their own, the lines that cannot be read."""
    broken, kept = path.with_name(path.name + BROKEN), work.keep(path)
    with broken.open("ab") as stream:
        stream.write(b"".join(line + b"\n" for line in bad.values()))
        stream.flush()
        os.fsync(stream.fileno())
    fsync_folder(path.parent)
    numbers = ", ".join(map(str, bad))
    work.report.done.append(
        f"{path.name}: line {numbers} cannot be read; set aside in {broken.name}, the old log is kept as {work.name(kept)}"
    )


def _sorted_out(lines: list[bytes]) -> tuple[list[LabelEvent], dict[int, bytes]]:
    """(events, {number: line that is none})."""
    decoder = msgspec.json.Decoder(LabelEvent)
    events: list[LabelEvent] = []
    bad: dict[int, bytes] = {}
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                events.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            bad[number] = line
    return events, bad


def _of_catalog(work: "Repair") -> list[LabelEvent]:
    if not has_catalog(work.workspace):
        return []
    engine = engine_of(url_of(work.workspace))  # as it is, even if it is of another version
    try:
        if damage_of(engine):
            return []  # what is read of it could be anything; it is set aside and made anew
        with engine.connect() as connection:
            query = select(*(label_events.c[name] for name in LabelEvent.__struct_fields__)).order_by(label_events.c.number)
            return [LabelEvent(**row._mapping) for row in connection.execute(query)]
    except SQLAlchemyError:
        return []  # a catalog that cannot be read is made anew later on, from the log
    finally:
        engine.dispose()
