"""Pages that read the store are made so that a failure of one shows in its place and never takes the window down."""

import importlib
import logging
import traceback
from pathlib import Path
from typing import Any

from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QApplication, QVBoxLayout, QWidget

from takeover.app.console.client import ConsoleClient
from takeover.app.console.widgets import EmptyState

_PAGES = {"review": ("review_page", "ReviewPage"), "insights": ("insights_page", "InsightsPage")}


class FailedPage(QWidget):
    """Says what failed; its button copies the details."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__()
        self.details = "".join(traceback.format_exception(error))
        state = EmptyState(f"{name.capitalize()} cannot be shown", f"{type(error).__name__}: {error}", "Copy details")
        if state.button is not None:
            state.button.clicked.connect(lambda: QApplication.clipboard().setText(self.details))
        QVBoxLayout(self).addWidget(state)

    def activated(self) -> None:
        """Nothing."""

    def deactivated(self) -> None:
        """Nothing."""

    def handle_key(self, event: QKeyEvent) -> bool:
        return False


def load_page(name: str, workspace: Path, person: str, client: ConsoleClient) -> Any:
    """The page, or a `FailedPage` in its place: driving the robot must not depend on the catalog being readable."""
    module, cls = _PAGES[name]
    try:
        page_class = getattr(importlib.import_module(f"takeover.app.console.{module}"), cls)
        return page_class(workspace, person, client) if name == "review" else page_class(workspace, client)
    except (ImportError, AttributeError, OSError, ValueError, RuntimeError) as error:
        logging.getLogger("console").exception("the %s page cannot be shown", name)
        return FailedPage(name, error)
