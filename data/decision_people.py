"""People in ``policies/decisions.jsonl``: who decided about policies, and taking one of them out.

What a decision means says `takeover.policies.decisions`.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from takeover.data.hdf5_image import write_durably
from takeover.data.locked_log import DECISIONS_FILE, GATE, locked
from takeover.data.people import CONSOLE, mentions, replaced
from takeover.data.workspace import Workspace

_TEXTS = ("author", "reason")  # the only fields in which a person can stand


def decision_authors(workspace: Workspace) -> Counter[str]:
    """How many decisions each person made, by pseudonym. Lines that cannot be read, and a last one without its end, are passed over."""
    found: Counter[str] = Counter()
    path = workspace.policies / DECISIONS_FILE
    if not path.exists():
        return found
    for _, line in _lines(path.read_bytes()):
        author = (_decoded(line) or {}).get("author")
        if isinstance(author, str) and author not in ("", GATE):
            found[author.removeprefix(CONSOLE)] += 1
    return found


def forget_in_decisions(workspace: Workspace, person: str, name: str) -> tuple[int, list[str]]:
    """Put ``name`` for ``person`` in authors and reasons; everything else of every decision stays byte for byte what it says.

    Returns (decisions that were changed, lines that could not be read and still have the pseudonym). The new file is put in the old
    one's place whole while its lock is held; whoever waits for the lock takes the new file's. Raises `OSError`.
    """
    path = workspace.policies / DECISIONS_FILE
    if not path.exists():
        return 0, []
    changed, left, lines = 0, [], []
    with locked(path):
        for number, line in _lines(path.read_bytes()):
            made = line
            decision = _decoded(line)
            if decision is None:
                if mentions(person).search(line):
                    left.append(f"{path}, line {number} cannot be read and still has the pseudonym; put the file back from a copy")
            else:
                texts = {key: replaced(decision[key], person, name) for key in _TEXTS if isinstance(decision.get(key), str)}
                if any(decision[key] != text for key, text in texts.items()):
                    made = json.dumps(decision | texts, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                    changed += 1
            lines.append(made)
        if changed:
            write_durably(path, b"".join(lines))
    return changed, left


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of every line that was written to its end."""
    whole = data[: data.rfind(b"\n") + 1]
    yield from enumerate(whole.splitlines(keepends=True), 1)


def _decoded(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:  # of bytes that are no text, too
        return None
    return found if isinstance(found, dict) else None
