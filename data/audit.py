"""The audit log: who changed what that matters for safety. Append-only JSON lines, on disk before the change counts."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = "audit.log"
MAX_TEXT = 500
MAX_LINE = 65536


def append(workspace: Path | str, who: str, what: str, **details: Any) -> None:
    """Add one entry. ``what``: limits_changed, stop_cleared, key_allowed, key_revoked, bridge_trusted, ... Raises `OSError`."""
    entry = {"wall_ns": time.time_ns(), "who": who[:MAX_TEXT], "what": what, **details}
    line = json.dumps(entry, ensure_ascii=True, default=str).encode() + b"\n"
    if len(line) > MAX_LINE:
        line = (
            json.dumps({name: entry[name] for name in ("wall_ns", "who", "what")} | {"text": "details too long to note"}).encode() + b"\n"
        )
    fd = os.open(Path(workspace) / FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        torn = size and os.pread(fd, 1, size - 1) != b"\n"  # a power cut within a line: the next one shall not be lost with it
        os.write(fd, b"\n" + line if torn else line)
        os.fsync(fd)
    finally:
        os.close(fd)


def entries(workspace: Path | str) -> Iterator[dict[str, Any]]:
    """All entries, oldest first; a line that a power cut left unfinished is given as ``unreadable``, not passed over."""
    path = Path(workspace) / FILE
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                entry = None
            if isinstance(entry, dict):
                yield entry
            elif line.strip():
                yield {"wall_ns": 0, "who": "", "what": "unreadable", "text": line.strip()[:MAX_TEXT]}


def note_limits(workspace: Path | str, who: str, limits: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Compare with the limits of the run before; note and return what differs (name -> (before, now)). The first run is noted too."""
    before: dict[str, Any] = {}
    for entry in entries(workspace):
        if entry.get("what") == "limits_changed":
            before = dict(entry.get("limits", {}))
    changed = {name: (before.get(name), value) for name, value in limits.items() if before.get(name) != value}
    if changed:
        append(workspace, who, "limits_changed", changed=changed, limits=limits)
    return changed if before else {}


def note_sight(workspace: Path | str, who: str, said: str) -> None:
    """Note the station's ``line_of_sight`` where it differs from the run before; the first run is compared with the default."""
    before = "auto"
    for entry in entries(workspace):
        if entry.get("what") == "line_of_sight_changed":
            before = str(entry.get("said", before))
    if said != before:
        append(workspace, who, "line_of_sight_changed", said=said, before=before)
