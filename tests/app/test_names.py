"""The interpreter's table of names does not grow in the middle of a run."""

import subprocess
import sys

import pytest

GROWTH = """
import sys, tracemalloc
from takeover.app.processes.names import make_room
tracemalloc.start()
if {room}:
    make_room()
before, _ = tracemalloc.get_traced_memory()
for i in range(60_000):
    sys.intern(f"episode-{{i}}.hdf5")
print(tracemalloc.get_traced_memory()[0] - before)
"""


@pytest.mark.parametrize("room", [True, False])
def test_names_that_come_and_go_take_no_memory_once_there_is_room(room: bool) -> None:
    said = subprocess.run([sys.executable, "-c", GROWTH.format(room=room)], capture_output=True, text=True, check=True)
    assert (int(said.stdout) < 20_000) is room, "bytes; without room the table is made anew"
