"""Python's cyclic garbage is collected in the window's thread alone.

Left to itself, Python collects in whichever thread happens to allocate; a worker thread that reads the catalog would then destroy Qt
objects of a page that was closed, which Qt allows in their own thread only (a segmentation fault).
"""

import gc

from PySide6.QtCore import QObject, QTimer

PERIOD_MS = 500


class GuiThreadCollector(QObject):
    """Takes collection over from Python until `close`; as often, by Python's own thresholds, but looked at twice a second."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._was_on = gc.isenabled()
        gc.disable()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.look)
        self._timer.start(PERIOD_MS)

    def look(self) -> int:
        """Collect the oldest generation that is due; returns how many objects were freed."""
        due = [
            generation for generation, (count, limit) in enumerate(zip(gc.get_count(), gc.get_threshold(), strict=True)) if count > limit
        ]
        return gc.collect(max(due)) if due else 0

    def close(self) -> None:
        """Leave it to Python again."""
        self._timer.stop()
        if self._was_on:
            gc.enable()
