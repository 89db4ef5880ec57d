"""Qt objects are destroyed in the window's thread, whichever thread makes the garbage."""

import gc
import threading

from PySide6.QtCore import QObject

from takeover.app.console.garbage import GuiThreadCollector


class Cycle(QObject):
    """Kept alive by itself, so only the collector frees it; says in which thread."""

    def __init__(self, freed_in: list[int]) -> None:
        super().__init__()
        self.itself = self
        self.freed_in = freed_in

    def __del__(self) -> None:
        self.freed_in.append(threading.get_ident())


COUNT = 2 * gc.get_threshold()[0]  # more than Python lets lie


def allocate() -> None:
    for _ in range(200):
        kept = [[] for _ in range(1000)]
        del kept


def test_a_working_thread_frees_nothing_of_qt(qapp, qtbot) -> None:
    gc.collect()
    gc.enable()
    collector = GuiThreadCollector()
    try:
        freed_in: list[int] = []
        for _ in range(COUNT):
            Cycle(freed_in)
        worker = threading.Thread(target=allocate)
        worker.start()
        worker.join()
        assert freed_in == []
        qtbot.waitUntil(lambda: len(freed_in) == COUNT, timeout=5000)
        assert set(freed_in) == {threading.get_ident()}
    finally:
        collector.close()
        assert gc.isenabled()
        gc.disable()
