"""Repair of ``labels.jsonl``: what the catalog knows and the log lacks is written back; lines that cannot be read are kept aside."""

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import create_engine, select
from sqlalchemy.exc import SQLAlchemyError

from takeover.data.catalog_tables import LabelEvent, label_events
from takeover.data.hdf5_image import write_durably

if TYPE_CHECKING:
    from takeover.data.repair import Repair


def repair_label_log(work: "Repair") -> None:
    """Make the label log readable and complete. The old one is kept in ``set-aside`` when a line is taken out."""
    path = work.workspace.labels_path
    decoder = msgspec.json.Decoder(LabelEvent)
    events: list[LabelEvent] = []
    bad: list[int] = []
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            events.append(decoder.decode(line))
        except msgspec.DecodeError:
            bad.append(number)
    known = {event.id for event in events}
    missing = [event for event in _of_catalog(work) if event.id not in known]
    if not bad and not missing:
        return
    if bad:
        where = work.name(work.set_aside(path))
        work.report.done.append(f"labels.jsonl: line {', '.join(map(str, bad))} cannot be read; the old log is kept as {where}")
    if missing:
        work.report.done.append(f"labels.jsonl: lacked {len(missing)} events that the catalog has; written back")
    complete = sorted([*events, *missing], key=lambda event: event.id) if missing else events  # ids are ULIDs: in the order of time
    write_durably(path, b"".join(msgspec.json.encode(event) + b"\n" for event in complete))


def _of_catalog(work: "Repair") -> list[LabelEvent]:
    if not work.workspace.catalog_path.exists():
        return []
    engine = create_engine(work.workspace.catalog_url)  # as it is, even if it is of another version
    try:
        with engine.connect() as connection:
            query = select(*(label_events.c[name] for name in LabelEvent.__struct_fields__)).order_by(label_events.c.number)
            return [LabelEvent(**row._mapping) for row in connection.execute(query)]
    except SQLAlchemyError:
        return []  # a catalog that cannot be read is made anew later on, from the log
    finally:
        engine.dispose()
