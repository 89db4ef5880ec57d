"""One worker thread for what may be slow (catalog, episode files): answers come back on the GUI thread, stale ones are dropped."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from PySide6.QtCore import QObject, Signal


class Background(QObject):
    """Jobs run one after the other in the order they were submitted, so a label written before a query is seen by it.

    Each job has a key; when a newer job of the same key was submitted meanwhile, the older one's answer is dropped.
    """

    _finished = Signal(str, int, object, object)  # key, generation, future, callback

    def __init__(self, on_error: Callable[[str, BaseException], None], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog")
        self._generation: dict[str, int] = {}
        self._on_error = on_error
        self._closed = False
        self._pending = 0
        self._finished.connect(self._deliver)

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._pending > 0

    def submit(self, key: str, job: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """Run ``job`` off the GUI thread, then ``then(answer)`` on it. What ``job`` raises goes to ``on_error(key, error)``."""
        if self._closed:
            return
        generation = self._generation[key] = self._generation.get(key, 0) + 1
        self._pending += 1
        future = self._pool.submit(job)
        future.add_done_callback(lambda done: self._announce(key, generation, done, then))

    def _announce(self, key: str, generation: int, future: "Future[Any]", then: Callable[[Any], None] | None) -> None:
        if not self._closed:
            self._finished.emit(key, generation, future, then)

    def _deliver(self, key: str, generation: int, future: "Future[Any]", then: Callable[[Any], None] | None) -> None:
        self._pending -= 1
        if self._closed or future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._on_error(key, error)
        elif then is not None and generation == self._generation[key]:
            then(future.result())

    def close(self) -> None:
        """Finish what was submitted (a label is never lost), deliver nothing more."""
        self._closed = True
        self._pool.shutdown(wait=True)
