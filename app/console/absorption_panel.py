"""The Insights panel with absorption over versions: the curve, or why there is none and the command that makes one."""

import html

from PySide6.QtCore import Qt
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import QApplication, QWidget

from takeover.app.console.insights_panels import ChartPanel
from takeover.app.console.models.absorption import AbsorptionView, command_for, details_of, notes_of, reading, reason_of
from takeover.app.console.models.absorption_chart import absorption_scene


class AbsorptionPanel(ChartPanel):
    """`command`: what a click copies; empty: nothing."""

    def __init__(self, workspace: str, parent: QWidget | None = None) -> None:
        super().__init__(
            "Absorption",
            (
                "share of corrections it acts closer to, 95 % band",
                "share of corrections it acts closer to",
                "closer to corrections",
            ),
            parent=parent,
        )
        self._workspace = workspace
        self.command = ""

    def show_view(self, view: AbsorptionView) -> None:
        """Everything that is shown of a run."""
        self.set_notes(*notes_of(view))
        self.chart.set_builder(
            lambda width, height: absorption_scene(width, height, view.curve), lambda version: reading(view.points, version)
        )
        self.set_empty(reason_of(view))
        self.command = command_for(view.run, self._workspace) if not view.points and view.unmeasured and not view.unread else ""
        self.setCursor(Qt.CursorShape.PointingHandCursor if self.command else Qt.CursorShape.ArrowCursor)
        said = details_of(view) + ([self.command, "Click to copy the command."] if self.command else [])
        self.setToolTip("".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in said))  # rich text is wrapped, plain text is not

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if self.command:
            QApplication.clipboard().setText(self.command)
            self.set_notes("copied")
