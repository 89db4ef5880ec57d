"""Room for names: CPython keeps every interned string in one table, and makes that anew, mostly twice as large, when it is full.

Names of files come and go by the thousand (`pathlib` interns each part of a path), and a slot that was used stays used until then. With
PyTorch loaded the table holds 60,000 names: half an hour into a run it grows from 1.9 to 3.8 MB at once, while no thread runs.
"""

import sys

ENOUGH = 100_000  # fills any table that a process of ours has at its start


def make_room() -> None:
    """Have the table made anew now. Every string dies at once, so that only its slot is used; some 50 ms."""
    for i in range(ENOUGH):
        sys.intern(f"a name that nobody has {i}")
